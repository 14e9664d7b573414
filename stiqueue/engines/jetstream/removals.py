"""Notices that a stream was removed from outside, and ends the leases of its messages.

A new stream numbers its messages anew, and the cluster knows a delivery by this number alone: an old lease would settle
a new message.
"""

from __future__ import annotations

from contextlib import suppress

from nats.aio.msg import Msg

from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.engines.jetstream.leases import Leases
from stiqueue.engines.jetstream.names import Names
from stiqueue.engines.jetstream.streams import Streams
from stiqueue.errors import StiQueueError


class Removals:
    """Watches the streams of one gateway."""

    def __init__(self, cluster: Cluster, names: Names, streams: Streams, leases: Leases) -> None:
        """Watch `streams` for `leases`; `start` begins."""
        self._cluster = cluster
        self._names = names
        self._streams = streams
        self._leases = leases

    async def start(self) -> None:
        """Listen to the cluster's advisories."""
        self._streams.on_removed = self._leases.abandon
        for subject in self._names.removals:
            await self._cluster.subscribe(subject, self._heard)

    async def _heard(self, message: Msg) -> None:
        if (queue := self._names.removed(message.subject)) is not None:
            self._streams.removed(queue)

    async def look(self) -> None:
        """Look for streams that were removed while the cluster could not tell, for lack of a connection."""
        for queue in self._leases.queues():
            self._streams.forget(queue)
            with suppress(StiQueueError):  # the next use looks again
                await self._streams.ensure(queue)
