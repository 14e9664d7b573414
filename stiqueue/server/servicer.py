"""The five RPCs as gRPC calls: each ends with its answer, or with the status and reason of its error."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import wraps
from typing import Any, TypeVar

import grpc

from stiqueue import limits
from stiqueue.errors import StiQueueError
from stiqueue.rules.engine import ready
from stiqueue.rules.entry import Peeked
from stiqueue.server.access.tokens import Right
from stiqueue.server.delivery import Context, Delivery
from stiqueue.server.requests import DEFECTS, Requests
from stiqueue.server.streams import AllStreams
from stiqueue.server.translation import read_query, read_subscription, write_peeked
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1 import queue_pb2_grpc
from stiqueue.wire.status import Trailers, end, to_wire

CANCELLED: tuple[grpc.StatusCode, str, Trailers] = grpc.StatusCode.CANCELLED, "", ()
"""The end of a call that neither returned nor raised a known error: its client has left."""

T = TypeVar("T")
S = TypeVar("S", bound="Servicer")
Method = Callable[[S, Any, Context], Coroutine[Any, Any, T]]


class Servicer:
    """The base of all services."""

    def __init__(self, requests: Requests, streams: AllStreams) -> None:
        """Serve through `requests`; count open streams in `streams`."""
        self.requests = requests
        self.streams = streams


def reports_errors(method: Method[S, T]) -> Method[S, T]:
    """Let `method` end its call with the status and reason of a `StiQueueError`; log a defect and answer INTERNAL."""

    @wraps(method)
    async def reporting(self: S, request: Any, context: Context) -> T:
        requests, began = self.requests, time.perf_counter()
        code, details, trailing = CANCELLED
        try:
            requests.refuse_early()
            response = await method(self, request, context)
            code = grpc.StatusCode.OK
            return response
        except (StiQueueError, *DEFECTS) as error:
            code, details, trailing = to_wire(requests.failure(method.__name__, request, error))
        finally:
            requests.served(method.__name__, code.name, began)
        end(context, code, details, trailing)
        return None  # type: ignore[return-value]  # gRPC sends no message with an error

    return reporting


class QueueServicer(Servicer, queue_pb2_grpc.QueueServiceServicer):
    """Serves `stiqueue.v1.QueueService`, on one event loop."""

    @reports_errors
    async def Enq(self, request: pb.EnqRequest, context: Context) -> pb.EnqResponse:
        return await ready(self.requests.enq(request))

    @reports_errors
    async def Deq(  # type: ignore[override]  # writes to its context instead of yielding
        self, request: pb.DeqRequest, context: Context
    ) -> None:
        requests, settings = self.requests, self.requests.settings
        requests.refuse_new()
        asked = read_subscription(request, not settings.ack_required)
        limits.check_subscription(asked)
        requests.check(Right.DEQ, asked.queue)
        self.streams.deliveries.check_room()
        if not asked.consumer:
            asked = dataclasses.replace(asked, consumer=context.peer())
        delivery = Delivery(requests.engine, asked, context)
        log = requests.log.came(asked) if requests.log.is_on else None
        with self.streams.deliveries.entered(delivery):
            try:
                await delivery.run(log.delivered if log else None)
            finally:
                if log:
                    log.left()

    @reports_errors
    async def Ack(self, request: pb.AckRequest, context: Context) -> pb.AckResponse:
        return await ready(self.requests.ack(request))

    @reports_errors
    async def Cnt(self, request: pb.CntRequest, context: Context) -> pb.CntResponse:
        return await self.requests.cnt(request)

    @reports_errors
    async def Peek(  # type: ignore[override]  # writes to its context instead of yielding
        self, request: pb.PeekRequest, context: Context
    ) -> None:
        requests = self.requests
        query = read_query(request)
        limits.check_peek(query)
        requests.check(Right.PEEK, query.queue)
        async for chunk in requests.engine.peek(query):
            for part in _parts(chunk, requests.settings.buff_size):
                await context.write(write_peeked(part))


def _parts(chunk: list[Peeked], limit: int) -> Iterable[list[Peeked]]:
    """Split a chunk so that each part fits into one answer: half of `limit` bytes, or a single message."""
    part: list[Peeked] = []
    size = 0
    for peeked in chunk:
        if part and size + peeked.entry.size > limit // 2:
            yield part
            part, size = [], 0
        part.append(peeked)
        size += peeked.entry.size
    if part:
        yield part
