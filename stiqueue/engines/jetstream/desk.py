"""`Desk`: the part of the engine that its consumers use."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Protocol

from stiqueue.engines.clock import Clock
from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.engines.jetstream.lease import Holder
from stiqueue.engines.jetstream.leases import Leases
from stiqueue.engines.jetstream.shared_settings import SharedSettings
from stiqueue.engines.jetstream.streams import Streams


class Desk(Protocol):
    """What all consumers of one gateway share."""

    cluster: Cluster
    streams: Streams
    leases: Leases
    shared: SharedSettings
    clock: Clock

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in the background; the engine waits for it when it closes."""
        ...

    def leave(self, consumer: Holder) -> None:
        """Forget a consumer."""
        ...
