"""Enqueueing: a single message without a request id is one publication, every other request is one atomic batch.

JetStream remembers message ids for some minutes, but a starting server rebuilds its list from the messages left in the
stream, and so forgets the ids of messages that were acked, expired or came due. Therefore a request id gets a separate
message, the record: the last of the batch, kept for as long as the id is remembered. JetStream stores batch and record
atomically, and reads the records when it rebuilds its list.
"""

from __future__ import annotations

import asyncio
import base64
import time
from itertools import count

from stiqueue.engines.dead_letters import dead_letter
from stiqueue.engines.jetstream.answers import NobodyThere, Refused, read_answer
from stiqueue.engines.jetstream.batches import MAX_BATCH, Batches, Publication, is_passing
from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.engines.jetstream.envelope import (
    MESSAGE_ID,
    TTL,
    batch_headers,
    message_id,
    record_headers,
    schedule_headers,
)
from stiqueue.engines.jetstream.names import Names
from stiqueue.engines.jetstream.shared_settings import SharedSettings
from stiqueue.engines.jetstream.streams import Stream, Streams
from stiqueue.errors import InvalidRequest, NotSupported, Unavailable
from stiqueue.limits import dead_letter_queue
from stiqueue.message import Batch, Durability, Receipt
from stiqueue.rules.entry import Entry

ROOM = 1 << 10
"""Bytes of a publication in addition to body and headers."""
DEAD_ROOM = 7 << 10
"""Bytes that a message must leave free for the headers of its dead letter: a reason of 1 KiB as escaped JSON."""
TRY_SECONDS = 8.0
"""Timeout for one `Enq`; after that the client must retry."""
PAUSE_SECONDS = 0.05

DUPLICATE = 10201
DUPLICATE_IN_PROCESS = 10158


class _TryAgain(Exception):
    """Raised when nothing was stored and a retry may succeed."""


class Publisher:
    """Enqueues for one gateway."""

    def __init__(
        self,
        cluster: Cluster,
        names: Names,
        streams: Streams,
        settings: SharedSettings,
        gateway: str,
        trusted: bool,
    ) -> None:
        """Publish to `streams`; `trusted` says whether the cluster syncs before it confirms."""
        self._cluster = cluster
        self._names = names
        self._streams = streams
        self._settings = settings
        self._keys = map(f"{gateway}-{{:x}}".format, count(1))
        self._trusted = trusted
        self._batches = Batches(cluster, self._keys)

    async def enq(self, batch: Batch, original_time_ms: int | None = None) -> Receipt:
        """See `stiqueue.rules.engine.Engine.enq`."""
        _check_supported(batch)
        if batch.ack_lease_ids:  # last, because `stiqueue move` asks with one whether its message would be accepted
            self._check_size(batch, batch_headers(batch, time.time(), original_time_ms), DEAD_ROOM)
            text = "ack_lease_ids: JetStream cannot acknowledge and publish in one step"
            raise NotSupported(text, "NO_ACK_IN_ENQ")
        try:
            return await asyncio.wait_for(self._until_clear(batch, original_time_ms), TRY_SECONDS)
        except asyncio.TimeoutError:
            raise Unavailable("the NATS cluster did not confirm the messages in time") from None

    async def bury(self, queue: str, entry: Entry, reason: str) -> None:
        """Copy a message to the dead letter queue and wait until it is stored. Idempotent: it makes no second copy.

        Raises:
            Unavailable: the copy may or may not be stored.
        """
        dead = dead_letter(entry, queue, reason, 0)
        target = self._settings.of(queue).dead_letter_queue or dead_letter_queue(queue)
        # A message rejected from a dead letter queue becomes a new message each time.
        # Its time as well: a stream that is removed and made again begins its numbers anew.
        key = f"dead:{queue}:{entry.id}:{entry.properties.enqueue_time_ms}"
        key += f":{entry.attempt}" if target == queue else ""
        batch = Batch(target, [entry.body], key, headers=dead.properties.headers)
        await self.enq(batch, entry.properties.enqueue_time_ms)

    async def _until_clear(self, batch: Batch, original_time_ms: int | None) -> Receipt:
        """Retry until the batch is stored or refused, while every failure certainly stored nothing."""
        pause = PAUSE_SECONDS
        while True:
            stream = await self._streams.ensure(batch.queue)
            try:
                return await self._publish(stream, batch, original_time_ms)
            except NobodyThere:
                self._streams.forget(batch.queue)  # the stream may be gone, or without a leader
            except _TryAgain:
                pass
            except Refused as error:
                raise self._streams.explain(error, batch.queue) from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.5)

    async def _publish(self, stream: Stream, batch: Batch, original_time_ms: int | None) -> Receipt:
        wall = time.time()
        headers = batch_headers(batch, wall, original_time_ms)
        self._check_size(batch, headers, DEAD_ROOM if original_time_ms is None else 0)
        subjects = [self._names.ready(batch.queue)] * len(batch.bodies)
        if batch.delay:
            if stream.bounded:
                raise NotSupported("delay: a queue with a bound on messages or bytes cannot have delays on this engine")
            headers |= schedule_headers(batch, subjects[0], wall)
            subjects = [self._names.later(batch.queue, next(self._keys)) for _ in batch.bodies]
        messages = [Publication(subject, body, headers) for subject, body in zip(subjects, batch.bodies, strict=True)]
        recorded = bool(batch.request_id) and not stream.bounded  # a record would count against the bound
        if recorded:
            what = b"%d" % len(batch.bodies)
            messages.append(Publication(self._names.probe(batch.queue), what, record_headers(batch.request_id)))
        elif batch.request_id:
            messages[0] = messages[0]._replace(headers=headers | {MESSAGE_ID: message_id(batch.request_id)})
        try:
            if len(messages) > 1:
                last, duplicate = await self._batches.store(stream.name, messages), False
            else:
                (only,) = messages
                answer = read_answer(await self._cluster.ask(only.subject, only.body, only.headers or None))
                last, duplicate = int(answer["seq"]), bool(answer.get("duplicate"))
        except Refused as error:
            if error.number == DUPLICATE and batch.request_id:
                return await self._first_receipt(stream, batch)
            if error.number == DUPLICATE_IN_PROCESS or is_passing(error):
                raise _TryAgain from error
            raise
        number = len(batch.bodies)
        return self._receipt(stream, last - recorded - number + 1, number, duplicate)

    async def _first_receipt(self, stream: Stream, batch: Batch) -> Receipt:
        """Return the answer to the first request with this id.

        JetStream refuses a repeated batch without naming a sequence number. But to a single message with a known id it
        answers with the number of the message that has the id. This query goes to a subject without consumers; should
        it ever be stored, it expires in a second.
        """
        number, probe = len(batch.bodies), self._names.probe(batch.queue)
        headers = {MESSAGE_ID: message_id(batch.request_id), TTL: "1s"}
        last = int(read_answer(await self._cluster.ask(probe, b"%d" % number, headers))["seq"])
        try:
            found = (await self._cluster.call(f"STREAM.MSG.GET.{stream.name}", seq=last))["message"]
        except Refused:  # it is gone: a message without a record, or the record has expired
            return self._receipt(stream, last, number, True)
        if found["subject"] != probe:  # a message without a record
            return self._receipt(stream, last, number, True)
        number = int(base64.b64decode(found["data"]))
        return self._receipt(stream, last - number, number, True)

    def _receipt(self, stream: Stream, first: int, number: int, duplicate: bool) -> Receipt:
        return Receipt(first, number, duplicate, durability(stream.replicas, self._trusted))

    def _check_size(self, batch: Batch, headers: dict[str, str], room: int) -> None:
        size = max(map(len, batch.bodies)) + sum(len(key) + len(text) for key, text in headers.items()) + ROOM + room
        if size > self._cluster.max_payload:
            raise InvalidRequest(
                f"bodies: a message of {size:,} bytes with its headers is above the cluster's limit of "
                f"{self._cluster.max_payload:,} (max_payload)",
                "MESSAGE_TOO_LARGE",
            )


def durability(replicas: int, trusted: bool) -> Durability:
    """Return the durability of a confirmed message; without syncs, a power cut can erase it on all servers at once."""
    if not trusted:
        return Durability.MEMORY
    return Durability.REPLICATED if replicas > 1 else Durability.DISK


def _check_supported(batch: Batch) -> None:
    if batch.priority:
        raise NotSupported("priority: JetStream delivers in one order; use a queue for each priority")
    if batch.key:
        raise NotSupported("key: JetStream cannot hold back messages behind one that is worked on")
    if batch.unique_key:
        raise NotSupported("unique_key: JetStream cannot tell when a message that is gone may come again")
    most = MAX_BATCH - bool(batch.request_id)
    if len(batch.bodies) > most:
        raise NotSupported(
            f"bodies: {len(batch.bodies):,} are above the {most:,} that JetStream stores atomically"
            + (" with a request_id" if batch.request_id else "")
        )
    if batch.ttl is not None and batch.delay and batch.ttl < batch.delay + 1:
        raise NotSupported("ttl: must be at least a second longer than delay on this engine")
