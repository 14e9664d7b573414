"""Enqueueing: one message is one publication, several are one atomic batch of JetStream."""

from __future__ import annotations

import asyncio
import time
from itertools import count

from nats.aio.msg import Msg

from stiqueue.engines.dead_letters import dead_letter, dead_letter_queue
from stiqueue.engines.jetstream.answers import NobodyThere, Refused, read_answer
from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.engines.jetstream.envelope import MESSAGE_ID, TTL, batch_headers, message_id, schedule_headers
from stiqueue.engines.jetstream.names import Names
from stiqueue.engines.jetstream.streams import Stream, Streams
from stiqueue.entry import Entry
from stiqueue.errors import InvalidRequest, NotSupported, Unavailable
from stiqueue.message import Batch, Durability, Receipt

MAX_BATCH = 1_000
"""Most messages in one atomic batch: JetStream's own limit."""
BATCHES = 16
"""Atomic batches of this gateway under way at a time; a stream allows 50."""
ROOM = 1 << 10
"""Bytes of a publication beside body and headers of ours."""
TRY_SECONDS = 8.0
"""How long one `Enq` may take before its client is told to try again."""
PAUSE_SECONDS = 0.05

DUPLICATE = 10201
DUPLICATE_IN_PROCESS = 10158
INCOMPLETE = 10176


class _TryAgain(Exception):
    """Raised when nothing was stored and the next try may succeed."""


class Publisher:
    """Enqueues for one gateway."""

    def __init__(self, cluster: Cluster, names: Names, streams: Streams, gateway: str, trusted: bool) -> None:
        """Publish to `streams`; `trusted` tells whether the cluster syncs what it confirms."""
        self._cluster = cluster
        self._names = names
        self._streams = streams
        self._keys = map(f"{gateway}-{{:x}}".format, count(1))
        self._trusted = trusted
        self._batches = asyncio.Semaphore(BATCHES)

    async def enq(self, batch: Batch, original_time_ms: int | None = None) -> Receipt:
        """Enqueue; see `stiqueue.engine.Engine.enq`."""
        _check_supported(batch)
        try:
            return await asyncio.wait_for(self._until_clear(batch, original_time_ms), TRY_SECONDS)
        except asyncio.TimeoutError:
            raise Unavailable("the NATS cluster did not confirm the messages in time") from None

    async def bury(self, queue: str, entry: Entry, reason: str) -> None:
        """Copy a message to the dead letter queue; it is there when this returns. A second copy is not made.

        Raises:
            Unavailable: it may or may not be there.
        """
        dead = dead_letter(entry, queue, reason, 0)
        target = dead_letter_queue(queue)
        # Dead letters of a dead letter queue are new messages each time they are rejected.
        key = f"dead:{queue}:{entry.id}" + (f":{entry.attempt}" if target == queue else "")
        batch = Batch(target, [entry.body], key, headers=dead.properties.headers)
        await self.enq(batch, entry.properties.enqueue_time_ms)

    async def _until_clear(self, batch: Batch, original_time_ms: int | None) -> Receipt:
        """Try until it is stored or refused, as long as a failure is surely one."""
        pause = PAUSE_SECONDS
        while True:
            stream = await self._streams.ensure(batch.queue)
            try:
                return await self._publish(stream, batch, original_time_ms)
            except NobodyThere:
                self._streams.forget(batch.queue)  # the stream may be gone, or has no leader now
            except _TryAgain:
                pass
            except Refused as error:
                raise self._streams.explain(error, batch.queue) from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)

    async def _publish(self, stream: Stream, batch: Batch, original_time_ms: int | None) -> Receipt:
        wall = time.time()
        headers = batch_headers(batch, wall, original_time_ms)
        self._check_size(batch, headers)
        subjects = [self._names.ready(batch.queue)] * len(batch.bodies)
        if batch.delay:
            if stream.bounded:
                raise NotSupported("delay: a queue with a bound on messages or bytes cannot have delays on this engine")
            headers |= schedule_headers(batch, subjects[0], wall)
            subjects = [self._names.later(batch.queue, next(self._keys)) for _ in batch.bodies]
        first_headers = headers | {MESSAGE_ID: message_id(batch.request_id)} if batch.request_id else headers
        try:
            if len(batch.bodies) == 1:
                answer = read_answer(await self._cluster.ask(subjects[0], batch.bodies[0], first_headers or None))
            else:
                answer = read_answer(await self._publish_batch(subjects, batch, headers, first_headers))
        except Refused as error:
            if error.number == DUPLICATE and batch.request_id:
                return await self._first_receipt(stream, batch)
            if error.number in (DUPLICATE_IN_PROCESS, INCOMPLETE) or "inflight" in error.text:
                raise _TryAgain from error
            raise
        number, last = len(batch.bodies), int(answer["seq"])
        if answer.get("duplicate"):
            return self._receipt(stream, last, number, True)
        return self._receipt(stream, last - number + 1, number, False)

    async def _publish_batch(
        self, subjects: list[str], batch: Batch, headers: dict[str, str], first_headers: dict[str, str]
    ) -> Msg:
        """Send the messages of an atomic batch; the last one is answered for all."""
        key = next(self._keys)
        last = len(batch.bodies)
        async with self._batches:
            for number, (subject, body) in enumerate(zip(subjects, batch.bodies, strict=True), 1):
                own = first_headers if number == 1 else headers
                own = {**own, "Nats-Batch-Id": key, "Nats-Batch-Sequence": str(number)}
                if number < last:
                    await self._cluster.send(subject, body, headers=own)
            return await self._cluster.ask(subject, body, {**own, "Nats-Batch-Commit": "1"})

    async def _first_receipt(self, stream: Stream, batch: Batch) -> Receipt:
        """Return what an earlier request with the same id was answered.

        JetStream says of a repeated batch only that it is one. A single message with the id is answered with the number
        of the first; it goes to a subject without consumers and is gone in a second if it should ever be stored.
        """
        headers = {MESSAGE_ID: message_id(batch.request_id), TTL: "1s"}
        answer = read_answer(await self._cluster.ask(self._names.probe(batch.queue), b"", headers))
        return self._receipt(stream, int(answer["seq"]), len(batch.bodies), True)

    def _receipt(self, stream: Stream, first: int, number: int, duplicate: bool) -> Receipt:
        return Receipt(first, number, duplicate, durability(stream.replicas, self._trusted))

    def _check_size(self, batch: Batch, headers: dict[str, str]) -> None:
        size = max(map(len, batch.bodies)) + sum(len(key) + len(text) for key, text in headers.items()) + ROOM
        if size > self._cluster.max_payload:
            raise InvalidRequest(
                f"bodies: a message of {size:,} bytes with its headers is above the cluster's limit of "
                f"{self._cluster.max_payload:,} (max_payload)",
                "MESSAGE_TOO_LARGE",
            )


def durability(replicas: int, trusted: bool) -> Durability:
    """Return how safe a confirmed message is; without syncing, a power cut can take it from all servers at once."""
    if not trusted:
        return Durability.MEMORY
    return Durability.REPLICATED if replicas > 1 else Durability.DISK


def _check_supported(batch: Batch) -> None:
    if batch.priority:
        raise NotSupported("priority: JetStream delivers in one order; use a queue for each priority")
    if batch.ack_lease_ids:
        raise NotSupported("ack_lease_ids: JetStream cannot acknowledge and publish in one step")
    if len(batch.bodies) > MAX_BATCH:
        raise NotSupported(
            f"bodies: {len(batch.bodies):,} are above the {MAX_BATCH:,} that JetStream stores all or none of"
        )
    if batch.ttl is not None and batch.delay and batch.ttl < batch.delay + 1:
        raise NotSupported("ttl: a delayed message lives for at least a second beyond its delay on this engine")
