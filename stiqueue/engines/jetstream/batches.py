"""JetStream's atomic batches. Requests that wait for a stream travel together in the next batch.

Each batch costs the cluster one commit, and a stream accepts 50 batches at a time from all gateways together. So the
more requests wait, the less each of them costs.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

from stiqueue.engines.jetstream.answers import Refused, read_answer
from stiqueue.engines.jetstream.cluster import Cluster

MAX_BATCH = 1_000
"""Most messages in one atomic batch: JetStream's limit."""
MOST_BYTES = 1 << 20
"""Most bytes of requests that travel together; a larger request travels alone."""
UNDER_WAY = 4
"""Most batches of this gateway in flight to one stream."""

INCOMPLETE = 10176


class Publication(NamedTuple):
    """One message to publish."""

    subject: str
    body: bytes
    headers: dict[str, str]


class _Request(NamedTuple):
    messages: Sequence[Publication]
    size: int
    last: asyncio.Future[int]
    """The sequence number of its last message, once stored."""


class Batches:
    """The batches of one gateway, in the order of their requests."""

    def __init__(self, cluster: Cluster, keys: Iterator[str]) -> None:
        """Publish batches under `keys`, which must be unique in the cluster."""
        self._cluster = cluster
        self._keys = keys
        self._waiting: defaultdict[str, deque[_Request]] = defaultdict(deque)
        self._under_way: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    async def store(self, stream: str, messages: Sequence[Publication]) -> int:
        """Store messages atomically and consecutively; return the sequence number of the last.

        Raises:
            NobodyThere: certainly nothing was stored.
            Refused: nothing was stored; the text has the cluster's reason.
            Unavailable: the messages may or may not be stored.
        """
        size = sum(len(message.body) for message in messages)
        request = _Request(messages, size, asyncio.get_running_loop().create_future())
        self._waiting[stream].append(request)
        self._begin(stream)
        return await request.last

    def _begin(self, stream: str) -> None:
        """Send waiting requests, up to the limit of batches in flight."""
        while self._under_way[stream] < UNDER_WAY and (requests := self._next(stream)):
            self._under_way[stream] += 1
            task = asyncio.get_running_loop().create_task(self._send(stream, requests))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if not self._under_way[stream]:
            del self._under_way[stream], self._waiting[stream]

    def _next(self, stream: str) -> list[_Request]:
        """Take the requests of the next batch; drop requests whose caller has given up."""
        waiting = self._waiting[stream]
        taken: list[_Request] = []
        number = size = 0
        while waiting:
            request = waiting[0]
            number += len(request.messages)
            size += request.size
            if taken and (number > MAX_BATCH or size > MOST_BYTES):
                break
            waiting.popleft()
            if request.last.done():
                number -= len(request.messages)
                size -= request.size
            else:
                taken.append(request)
        return taken

    async def _send(self, stream: str, requests: Sequence[_Request]) -> None:
        try:
            await self._settle(requests)
        finally:
            self._under_way[stream] -= 1
            self._begin(stream)

    async def _settle(self, requests: Sequence[_Request]) -> None:
        """Store requests together; give each its sequence number or its error."""
        try:
            number = await self._publish(list(chain.from_iterable(request.messages for request in requests)))
        except Refused as error:
            if len(requests) == 1 or is_passing(error):
                _fail(requests, error)
                return
            # One bad request, such as a repeated one, must not fail the others.
            half = len(requests) // 2
            await self._settle(requests[:half])
            await self._settle(requests[half:])
        except Exception as error:  # every caller must get an answer
            _fail(requests, error)
        else:
            for request in reversed(requests):
                if not request.last.done():
                    request.last.set_result(number)
                number -= len(request.messages)

    async def _publish(self, messages: Sequence[Publication]) -> int:
        """Publish one batch; JetStream answers its last message for all."""
        key = next(self._keys)
        for number, (subject, body, headers) in enumerate(messages, 1):
            own = {**headers, "Nats-Batch-Id": key, "Nats-Batch-Sequence": str(number)}
            if number < len(messages):
                await self._cluster.send(subject, body, headers=own)
        answer = read_answer(await self._cluster.ask(subject, body, {**own, "Nats-Batch-Commit": "1"}))
        return int(answer["seq"])


def is_passing(error: Refused) -> bool:
    """Return whether a batch was refused for a temporary reason that lies in none of its messages."""
    return error.number == INCOMPLETE or "inflight" in error.text


def _fail(requests: Sequence[_Request], error: Exception) -> None:
    for request in requests:
        if not request.last.done():
            request.last.set_exception(error)
