"""The streams: one per queue, created on first use and not removed, so that ids always rise; but see `sweeper`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stiqueue.engines.bounds import Bounds
from stiqueue.engines.jetstream.answers import Refused
from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.engines.jetstream.envelope import REMEMBERED_SECONDS
from stiqueue.engines.jetstream.names import Names
from stiqueue.engines.jetstream.refusals import (
    NAME_IN_USE,
    NO_PEERS,
    NO_ROOM,
    STORE_FAILED,
    STREAM_NOT_FOUND,
    TOO_LARGE,
    refusal,
)
from stiqueue.engines.jetstream.stream_consumers import NANOSECONDS, StreamConsumers
from stiqueue.errors import (
    DiskFull,
    InvalidRequest,
    LimitReached,
    QueueFull,
    StiQueueError,
    StoreError,
    Unavailable,
)
from stiqueue.message import ANSWERS_PREFIX, DEAD_SUFFIX
from stiqueue.rules.policies import covers

PEERS_SECONDS = 5.0
"""How long a starting cluster may lack servers."""
RETRY_SECONDS = 0.25
AT_ONCE = 16
"""How many consumers get other settings at the same time."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream of the cluster."""

    queue: str
    name: str
    replicas: int
    bounded: bool
    """Whether it refuses messages above a bound; then it has no delays, because JetStream cannot do both."""


class Streams:
    """Creates streams and remembers existing ones."""

    def __init__(
        self,
        cluster: Cluster,
        names: Names,
        consumers: StreamConsumers,
        replicas: int,
        bounds: Bounds,
        logger: logging.Logger,
    ) -> None:
        """Create streams with `replicas`, within `bounds`, and `consumers` for them."""
        self._cluster = cluster
        self._names = names
        self._consumers = consumers
        self._replicas = replicas
        self._bounds = bounds
        self._logger = logger
        self._known: dict[str, Stream] = {}
        self._created: dict[str, str] = {}
        """When the stream of a queue was created, also of one that is forgotten."""
        self.on_removed: Callable[[str], None] = lambda queue: None
        """Called with a queue when its stream was removed, perhaps a while ago; a new one numbers its messages anew."""
        self._making = asyncio.Lock()

    def known(self, queue: str) -> Stream | None:
        """Return the stream of a queue, if it is known."""
        return self._known.get(queue)

    def forget(self, queue: str) -> None:
        """Forget a stream, which may be gone: the next use looks again."""
        self._known.pop(queue, None)

    def removed(self, queue: str) -> None:
        """Forget a stream that is gone, and tell so."""
        self.forget(queue)
        self._created.pop(queue, None)
        self.on_removed(queue)

    async def ensure(self, queue: str) -> Stream:
        """Return the stream of a queue; create it if necessary.

        Raises:
            LimitReached: there are too many queues.
            Unavailable: the cluster cannot create it now.
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
                if error.number != NAME_IN_USE:  # another gateway, with other bounds, was faster
                    raise refusal(error) from error
                found = await self.find(queue)
                if found is None:
                    raise Unavailable(f"the stream {name} was removed while it was created") from error
        if self._created.setdefault(queue, found["created"]) != found["created"]:
            self.removed(queue)
            self._created[queue] = found["created"]
        config = found["config"]
        await self._consumers.put(queue)
        return Stream(queue, name, int(config["num_replicas"]), config.get("discard") == "new")

    async def find(self, queue: str) -> dict[str, Any] | None:
        """Return the cluster's info on a queue's stream, with counts by undelayed subject; None: no stream.

        Raises:
            Unavailable: the cluster does not answer.
        """
        try:
            return await self._cluster.call(
                f"STREAM.INFO.{self._names.stream(queue)}", subjects_filter=self._names.undelayed(queue)
            )
        except Refused as error:
            if error.number == STREAM_NOT_FOUND:
                return None
            raise refusal(error) from error

    async def list_queues(self) -> list[str]:
        """Return the queues whose stream has messages, or records of request ids.

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
        number = (await self._cluster.call("STREAM.NAMES", subject=self._names.all_queues, offset=0))["total"]
        if number < limit or queue.endswith(DEAD_SUFFIX) or queue.startswith(ANSWERS_PREFIX):
            return
        number -= len(await self.existing(f"{ANSWERS_PREFIX}*"))  # those of clients, which come and go
        if number >= limit:
            raise LimitReached(f"there are {number:,} queues; max_queues is {limit:,}", "TOO_MANY_QUEUES")

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
        # A dead letter queue must refuse nothing. Other queues have either bounds that refuse, or schedules.
        if (bounds.max_messages or bounds.max_queue_bytes) and not queue.endswith(DEAD_SUFFIX):
            config |= {
                "discard": "new",
                "max_msgs": bounds.max_messages or -1,
                "max_bytes": bounds.max_queue_bytes or -1,
            }
        else:
            config |= {"subjects": [*config["subjects"], names.later(queue)], "allow_msg_schedules": True}
        return config

    async def apply_settings(self, name: str) -> None:
        """Let the consumers of all queues that match `name` deliver no more than the settings allow.

        Raises:
            Unavailable: the cluster does not answer; some of them may deliver as before.
        """
        room = asyncio.Semaphore(AT_ONCE)

        async def apply(queue: str) -> None:
            async with room:
                await self._consumers.put(queue)

        await asyncio.gather(*(apply(queue) for queue in await self.existing(name)))

    async def existing(self, name: str) -> list[str]:
        """Return the queues with a stream that a name or pattern matches."""
        if "*" not in name:
            return [name] if await self.find(name) else []
        found: list[str] = []
        total = 1
        while len(found) < total:
            page = await self._cluster.call("STREAM.NAMES", subject=self._names.all_queues, offset=len(found))
            names = page.get("streams") or []
            found += [self._names.queue(each) for each in names]
            total = page["total"] if names else 0
        return [queue for queue in found if covers(name, queue)]

    def explain(self, error: Refused, queue: str) -> StiQueueError:
        """Translate the refusal of a message."""
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
        """Create a stream like that of a queue and remove it, so that a startup fails if the cluster cannot do it.

        Raises:
            StoreError: the cluster cannot create it; the text has its reason.
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
            self._logger.warning("%s; existing queues have that many, so a server is probably down", text)

    async def _create_patiently(self, config: dict[str, Any]) -> None:
        """Create a stream; wait if the cluster's servers have not all found each other yet."""
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
        """Return whether a queue exists that has at least as many replicas."""
        try:
            page = await self._cluster.call("STREAM.LIST", subject=self._names.all_queues, offset=0)
        except StiQueueError:
            return False
        return any(each["config"]["num_replicas"] >= self._replicas for each in page.get("streams") or [])
