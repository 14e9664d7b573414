"""The one consumer of each stream, which delivers to all gateways what the settings of its queue allow.

The cluster enforces a pause and the most leased messages here, for all gateways at the same moment, and for requests
that wait already.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timezone
from typing import Any

from stiqueue.engines.jetstream.answers import Refused
from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.engines.jetstream.envelope import time_ms
from stiqueue.engines.jetstream.names import CONSUMER, Names
from stiqueue.engines.jetstream.refusals import refusal
from stiqueue.engines.jetstream.shared_settings import Pause, SharedSettings, wall_ms
from stiqueue.errors import Unavailable

NANOSECONDS = 10**9
FOR_EVER = "9999-12-31T00:00:00Z"
"""The end of a pause that does not end by itself."""
APPLY_SECONDS = 5.0
LOOK_SECONDS = 0.02
NUDGE = b'{"batch": 1, "max_bytes": 1, "expires": 1}'
"""A request that no message can answer. A consumer that was resumed serves waiting requests when the next one comes."""


class StreamConsumers:
    """Creates the consumers, and changes them when settings change."""

    def __init__(self, cluster: Cluster, names: Names, settings: SharedSettings, ack_wait: float) -> None:
        """Let consumers keep to `settings`, and give back unsettled messages after `ack_wait` seconds."""
        self._cluster = cluster
        self._names = names
        self._settings = settings
        self._ack_wait = ack_wait

    async def put(self, queue: str) -> None:
        """Create the consumer of a queue, or change it to what the settings say now.

        Raises:
            Unavailable: the cluster does not answer; it may deliver as before.
        """
        version = None
        while version != self._settings.version:  # else another gateway may have put newer settings before
            version = self._settings.version
            try:
                await self._put(queue, self._settings.pause_of(queue))
            except Refused as error:
                raise refusal(error) from error

    async def _put(self, queue: str, pause: Pause | None) -> None:
        stream = self._names.stream(queue)
        asked = {"pause_until": _end(pause)} if pause else {}
        config: dict[str, Any] = {
            "durable_name": CONSUMER,
            "ack_policy": "explicit",
            "ack_wait": int(self._ack_wait * NANOSECONDS),
            "max_deliver": -1,
            "max_ack_pending": self._settings.of(queue).max_leased or -1,
            "max_waiting": 1 << 20,
            "filter_subject": self._names.ready(queue),
            **asked,
        }
        path = f"{stream}.{CONSUMER}"
        made = await self._cluster.call(f"CONSUMER.DURABLE.CREATE.{path}", stream_name=stream, config=config)
        if _has(made, pause):
            return
        # It existed, and then keeps its pause whatever the config says.
        await self._cluster.call(f"CONSUMER.PAUSE.{path}", **asked)
        await self._until_applied(path, pause)
        if pause is None:
            await self._cluster.ask(f"$JS.API.CONSUMER.MSG.NEXT.{path}", NUDGE)

    async def _until_applied(self, path: str, pause: Pause | None) -> None:
        """Wait until the server that leads a consumer has its pause; the cluster answers before that.

        Raises:
            Unavailable: it took too long.
        """
        give_up = time.monotonic() + APPLY_SECONDS
        while not _has(await self._cluster.call(f"CONSUMER.INFO.{path}"), pause):
            if time.monotonic() > give_up:
                raise Unavailable(f"the NATS cluster has not applied the settings of {path} yet")
            await asyncio.sleep(LOOK_SECONDS)


def _end(pause: Pause) -> str:
    """Return when a pause ends, as JetStream writes it."""
    if not pause.until_ms:
        return FOR_EVER
    return datetime.fromtimestamp(pause.until_ms / 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _has(consumer: dict[str, Any], pause: Pause | None) -> bool:
    """Whether a consumer has this pause; None, or one that has ended: none."""
    if pause is None or (pause.until_ms and pause.until_ms <= wall_ms()):
        return not consumer.get("paused")
    until = consumer["config"].get("pause_until")
    return until is not None and time_ms(until) == time_ms(_end(pause))
