"""Removes the streams of answers that nobody reads any more: each client that makes calls has one of its own."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from stiqueue.engines.jetstream.answers import Refused
from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.engines.jetstream.envelope import REMEMBERED_SECONDS, time_ms
from stiqueue.engines.jetstream.names import CONSUMER, Names
from stiqueue.engines.jetstream.streams import Streams
from stiqueue.errors import StiQueueError
from stiqueue.message import ANSWERS_PREFIX

SWEEP_SECONDS = 60.0
"""How often a gateway looks for such streams."""
IDLE_SECONDS = float(REMEMBERED_SECONDS)
"""How long one has been empty and unused before it is removed."""


class Sweeper:
    """Looks through the streams of one cluster. Several gateways may do so at the same time."""

    def __init__(self, cluster: Cluster, names: Names, streams: Streams) -> None:
        """Remove streams of answers from `streams`."""
        self._cluster = cluster
        self._names = names
        self._streams = streams

    async def sweep(self) -> None:
        """Remove what is left behind; what the cluster refuses, or has no time for, is tried again next time."""
        with suppress(StiQueueError):
            for queue in await self._streams.existing(f"{ANSWERS_PREFIX}*"):
                info = await self._streams.find(queue)
                if info is not None and await self._is_left(queue, info):
                    self._streams.forget(queue)
                    with suppress(Refused):  # another gateway was faster
                        await self._cluster.call(f"STREAM.DELETE.{self._names.stream(queue)}")

    async def _is_left(self, queue: str, info: dict[str, Any]) -> bool:
        used_ms = max(time_ms(info["created"]), time_ms(info["state"]["last_ts"]))
        if info["state"]["messages"] or time_ms(info["ts"]) - used_ms < IDLE_SECONDS * 1000:
            return False
        try:
            consumer = await self._cluster.call(f"CONSUMER.INFO.{self._names.stream(queue)}.{CONSUMER}")
        except Refused:  # there is none, so nobody waits
            return True
        return not (consumer["num_waiting"] or consumer["num_ack_pending"])
