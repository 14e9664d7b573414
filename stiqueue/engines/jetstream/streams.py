"""The streams: one for each queue, made on first use and never removed, so that ids rise for ever."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

from stiqueue.engines.bounds import Bounds
from stiqueue.engines.jetstream.answers import Refused
from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.engines.jetstream.names import CONSUMER, Names
from stiqueue.errors import (
    DiskFull,
    InvalidRequest,
    LimitReached,
    QueueFull,
    StiQueueError,
    StoreError,
    Unavailable,
)
from stiqueue.message import DEAD_SUFFIX

REMEMBERED_SECONDS = 600
"""How long a request id is remembered: twice what is promised, so that it never runs out while it is asked for."""
NANOSECONDS = 10**9
NAME_IN_USE = 10058
STREAM_NOT_FOUND = 10059
STORE_FAILED = 10077
NO_ROOM = {10023, 10047, 10122}
TOO_LARGE = 10054
NO_PEERS = 10005
PEERS_SECONDS = 5.0
"""How long after its start a cluster may lack servers."""
RETRY_SECONDS = 0.25
NOT_YET = {NO_PEERS, 10008, 10009, 10074}
"""Answers of a cluster that has not enough servers now: no peers, no leader, no cluster."""


@dataclass(frozen=True, slots=True)
class Stream:
    """What is known of one stream."""

    queue: str
    name: str
    replicas: int
    bounded: bool
    """Whether it refuses messages above a bound; it has no delays then, for JetStream cannot do both."""


class Streams:
    """Makes streams and remembers those that exist."""

    def __init__(
        self, cluster: Cluster, names: Names, replicas: int, bounds: Bounds, ack_wait: float, logger: logging.Logger
    ) -> None:
        """Make streams with so many replicas, within `bounds`."""
        self._cluster = cluster
        self._names = names
        self._replicas = replicas
        self._bounds = bounds
        self._ack_wait = ack_wait
        self._logger = logger
        self._known: dict[str, Stream] = {}
        self._making = asyncio.Lock()

    def known(self, queue: str) -> Stream | None:
        """Return the stream of a queue, if it was seen before."""
        return self._known.get(queue)

    def forget(self, queue: str) -> None:
        """Look again before the next use: it may be gone."""
        self._known.pop(queue, None)

    async def ensure(self, queue: str) -> Stream:
        """Return the stream of a queue, made if there is none.

        Raises:
            LimitReached: there are too many queues.
            Unavailable: the cluster cannot make it now.
        """
        stream = self._known.get(queue)
        if stream is None:
            async with self._making:
                stream = self._known.get(queue) or await self._make(queue)
                self._known[queue] = stream
        return stream

    async def _make(self, queue: str) -> Stream:
        name = self._names.stream(queue)
        found = await self.find(queue)
        if found is None:
            await self._check_number(queue)
            try:
                found = await self._cluster.call(f"STREAM.CREATE.{name}", **self._config(queue))
            except Refused as error:
                if error.number != NAME_IN_USE:  # else: another gateway, with other bounds, was faster
                    raise refusal(error) from error
                found = await self.find(queue)
                if found is None:
                    raise Unavailable(f"the stream {name} comes and goes") from error
        config = found["config"]
        await self._make_consumer(queue, name)
        return Stream(queue, name, int(config["num_replicas"]), config.get("discard") == "new")

    async def find(self, queue: str) -> dict[str, Any] | None:
        """Return what the cluster says of a queue's stream, with its count of ready messages; None: there is none.

        Raises:
            Unavailable: the cluster does not answer.
        """
        try:
            return await self._cluster.call(
                f"STREAM.INFO.{self._names.stream(queue)}", subjects_filter=self._names.ready(queue)
            )
        except Refused as error:
            if error.number == STREAM_NOT_FOUND:
                return None
            raise refusal(error) from error

    async def list_queues(self) -> list[str]:
        """Return the queues that have a stream with messages.

        Raises:
            Unavailable: the cluster does not answer.
        """
        found: list[str] = []
        offset, total = 0, 1
        while offset < total:
            page = await self._cluster.call("STREAM.LIST", subject=self._names.all_queues, offset=offset)
            streams = page.get("streams") or []
            found += [self._names.queue(each["config"]["name"]) for each in streams if each["state"]["messages"]]
            offset, total = offset + max(1, len(streams)), page["total"]
        return found

    async def _check_number(self, queue: str) -> None:
        limit = self._bounds.max_queues
        page = await self._cluster.call("STREAM.NAMES", subject=self._names.all_queues, offset=0)
        if page["total"] >= limit and not queue.endswith(DEAD_SUFFIX):
            raise LimitReached(f"there are {page['total']:,} queues; max_queues is {limit:,}", "TOO_MANY_QUEUES")

    def _config(self, queue: str) -> dict[str, Any]:
        names, bounds = self._names, self._bounds
        config: dict[str, Any] = {
            "name": names.stream(queue),
            "subjects": [names.ready(queue), names.probe(queue)],
            "retention": "workqueue",
            "storage": "file",
            "num_replicas": self._replicas,
            "duplicate_window": REMEMBERED_SECONDS * NANOSECONDS,
            "allow_direct": True,
            "allow_atomic": True,
            "allow_msg_ttl": True,
        }
        # Nothing may be refused where dead letters go. Elsewhere JetStream offers bounds that refuse, or schedules.
        if (bounds.max_messages or bounds.max_queue_bytes) and not queue.endswith(DEAD_SUFFIX):
            config |= {
                "discard": "new",
                "max_msgs": bounds.max_messages or -1,
                "max_bytes": bounds.max_queue_bytes or -1,
            }
        else:
            config |= {"subjects": [*config["subjects"], names.later(queue)], "allow_msg_schedules": True}
        return config

    async def _make_consumer(self, queue: str, stream: str) -> None:
        config = {
            "durable_name": CONSUMER,
            "ack_policy": "explicit",
            "ack_wait": int(self._ack_wait * NANOSECONDS),
            "max_deliver": -1,
            "max_ack_pending": -1,
            "max_waiting": 1 << 20,
            "filter_subject": self._names.ready(queue),
        }
        try:
            await self._cluster.call(f"CONSUMER.DURABLE.CREATE.{stream}.{CONSUMER}", stream_name=stream, config=config)
        except Refused as error:
            raise refusal(error) from error

    def explain(self, error: Refused, queue: str) -> StiQueueError:
        """Return why a message was refused."""
        if error.number == STORE_FAILED and "maximum" in error.text:
            bounds = self._bounds
            limits = f"max_messages is {bounds.max_messages:,}, max_queue_bytes {bounds.max_queue_bytes:,}"
            return QueueFull(f"queue {queue!r}: {error.text}; {limits}")
        if error.number in NO_ROOM:
            return DiskFull(f"the NATS cluster has no room: {error}")
        if error.number == TOO_LARGE:
            return InvalidRequest(f"bodies: {error}", "MESSAGE_TOO_LARGE")
        return refusal(error)

    async def rehearse(self, key: str) -> None:
        """Make a stream as queues have it, and remove it: a cluster that cannot is noticed at the start.

        Raises:
            StoreError: it cannot be made; the text has the cluster's reason.
        """
        name = f"{self._names.prefix}-rehearsal={key}"
        config = self._config("rehearsal") | {"name": name, "subjects": [f"{self._names.prefix}.rehearsal.{key}"]}
        config["metadata"] = {"stiqueue": "rehearsal"}
        try:
            await self._create_patiently(config)
            await self._cluster.call(f"STREAM.DELETE.{name}")
        except StiQueueError as error:
            text = f"the NATS cluster cannot keep a new queue with {self._replicas} replicas: {error}"
            if not await self._was_able():
                raise StoreError(text) from error
            self._logger.warning("%s; it did so before, so it is taken for a server that is down", text)

    async def _create_patiently(self, config: dict[str, Any]) -> None:
        """Make a stream, perhaps in a cluster of which some servers have only just begun to hear of each other."""
        give_up = time.monotonic() + PEERS_SECONDS
        while True:
            try:
                await self._cluster.call(f"STREAM.CREATE.{config['name']}", **config)
            except Refused as error:
                if error.number != NO_PEERS or time.monotonic() > give_up:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _was_able(self) -> bool:
        """Whether there is a queue with as many replicas as are asked for."""
        try:
            page = await self._cluster.call("STREAM.LIST", subject=self._names.all_queues, offset=0)
        except StiQueueError:
            return False
        return any(each["config"]["num_replicas"] >= self._replicas for each in page.get("streams") or [])


def refusal(error: Refused) -> StiQueueError:
    """Return the cluster's refusal as an error of ours."""
    if error.number in NOT_YET:
        return Unavailable(f"the NATS cluster cannot do that now: {error}")
    return StoreError(f"the NATS cluster refuses: {error}")
