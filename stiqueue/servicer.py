"""The five RPCs: translate, check, ask the engine, translate back."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import wraps
from typing import Any, TypeVar

import grpc

from stiqueue import limits
from stiqueue.delivery import Context, Delivery
from stiqueue.engine import Engine
from stiqueue.entry import Peeked
from stiqueue.errors import ServerError, StiQueueError, TooManyConsumers, Unavailable
from stiqueue.guard import Guard, Observe
from stiqueue.message import Outcome
from stiqueue.message_log import MessageLog
from stiqueue.settings import Settings
from stiqueue.status import Trailers, end, to_wire
from stiqueue.tokens import Grant, Right
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1 import queue_pb2_grpc
from stiqueue.wire import (
    read_batch,
    read_query,
    read_settlement,
    read_subscription,
    write_counts,
    write_exchanged,
    write_peeked,
    write_receipt,
)

CANCELLED: tuple[grpc.StatusCode, str, Trailers] = grpc.StatusCode.CANCELLED, "", ()
"""How a call ends that returns nothing and raises no error of ours: its client has left."""

T = TypeVar("T")
Method = Callable[["QueueServicer", Any, Context], Coroutine[Any, Any, T]]


def _reports_errors(method: Method[T]) -> Method[T]:
    """Let `method` end its call with the status and reason of an error of ours; a defect is logged: INTERNAL."""

    @wraps(method)
    async def reporting(self: QueueServicer, request: Any, context: Context) -> T:
        observe, began = self.observe, time.perf_counter()
        code, details, trailing = CANCELLED
        try:
            if not self._open:
                raise Unavailable("the server is starting", "STARTING")
            response = await method(self, request, context)
            code = grpc.StatusCode.OK
            return response
        except StiQueueError as error:
            code, details, trailing = to_wire(error)
        except (TypeError, ValueError, KeyError, AttributeError, RuntimeError, AssertionError) as error:
            extra = {name: text for name in ("queue", "consumer") if (text := getattr(request, name, ""))}
            self.logger.exception("a defect in %s", method.__name__, extra=extra)
            what = f"{type(error).__name__} in {method.__name__}; the server's log has the details"
            code, details, trailing = to_wire(ServerError(what))
        finally:
            if observe is not None:
                observe(method.__name__, code.name, time.perf_counter() - began)
        end(context, code, details, trailing)
        return None  # type: ignore[return-value]  # gRPC sends no message with an error

    return reporting


class QueueServicer(queue_pb2_grpc.QueueServiceServicer):
    """Serves `stiqueue.v1.QueueService` from an engine, on one event loop."""

    def __init__(self, engine: Engine, settings: Settings, logger: logging.Logger, guard: Guard | None = None) -> None:
        """Serve `engine` within the limits of `settings`, to all or to those whom `guard` knows."""
        self.engine = engine
        self.guard = guard
        self.observe: Observe | None = None
        self.settings = settings
        self.logger = logger
        self._log = MessageLog(logger)
        self.max_message_bytes = settings.buff_size - limits.MESSAGE_ROOM
        self._deliveries: dict[Delivery, Grant | None] = {}
        """The open streams, and by which token."""
        self._open = self._draining = False
        self.no_streams = asyncio.Event()
        """Set while no `Deq` stream is open."""
        self.no_streams.set()

    @_reports_errors
    async def Enq(self, request: pb.EnqRequest, context: Context) -> pb.EnqResponse:
        self._refuse_when_draining()
        batch = read_batch(request)
        limits.check_batch(batch, self.max_message_bytes)
        self._check(Right.ENQ, batch.queue)
        if batch.ack_lease_ids:
            self._check(Right.DEQ)
        if not self._log.is_on:
            return write_receipt(await self.engine.enq(batch))
        acked = self._log.holds(batch.ack_lease_ids)
        receipt = await self.engine.enq(batch)
        self._log.enqueued(batch, receipt.first_id)
        self._log.settled(Outcome.ACK, acked)
        return write_receipt(receipt)

    @_reports_errors
    async def Deq(  # type: ignore[override]  # writes to its context instead of yielding
        self, request: pb.DeqRequest, context: Context
    ) -> None:
        self._refuse_when_draining()
        asked = read_subscription(request, self.settings.ack_timeout, not self.settings.ack_required)
        limits.check_subscription(asked)
        self._check(Right.DEQ, asked.queue)
        if len(self._deliveries) >= self.settings.max_consumers:
            raise TooManyConsumers(f"there are {len(self._deliveries):,} consumers, the limit (max_consumers)")
        if not asked.consumer:
            asked = dataclasses.replace(asked, consumer=context.peer())
        delivery = Delivery(self.engine, asked, context)
        self._deliveries[delivery] = self.guard.current() if self.guard is not None else None
        self.no_streams.clear()
        log = self._log.came(asked) if self._log.is_on else None
        try:
            await delivery.run(log.delivered if log else None)
        finally:
            if log:
                log.left()
            del self._deliveries[delivery]
            if not self._deliveries:
                self.no_streams.set()

    @_reports_errors
    async def Ack(self, request: pb.AckRequest, context: Context) -> pb.AckResponse:
        settlement = read_settlement(request)
        limits.check_settlement(settlement)
        if request.take_next:
            limits.check_exchange(settlement)
        # For no queue in particular: a lease id cannot be guessed, so whoever has one was given the message.
        self._check(Right.DEQ)
        found = self._log.holds(settlement.lease_ids) if self._log.is_on else None
        if request.take_next:
            (lease_id,) = settlement.lease_ids
            if self.guard is not None and (queue := self.engine.queue_of(lease_id)) is not None:
                self._check(Right.DEQ, queue)
            given = await self.engine.exchange(lease_id)
            if found:
                self._log.exchanged(found, given)
            return write_exchanged(lease_id, given)
        stale = await self.engine.settle(settlement)
        if found:
            self._log.settled(settlement.outcome, found, stale)
        return pb.AckResponse(stale_lease_ids=stale)

    @_reports_errors
    async def Cnt(self, request: pb.CntRequest, context: Context) -> pb.CntResponse:
        limits.check_queues(request.queues)
        queues = [limits.queue_name(name) for name in request.queues]
        self._check(Right.PEEK, *queues)
        counts = await self.engine.counts(queues)
        if self.guard is not None:
            grant = self.guard.current()
            counts = [each for each in counts if grant.allows(Right.PEEK, each.queue)]
        return write_counts(counts)

    @_reports_errors
    async def Peek(  # type: ignore[override]  # writes to its context instead of yielding
        self, request: pb.PeekRequest, context: Context
    ) -> None:
        query = read_query(request)
        limits.check_peek(query)
        self._check(Right.PEEK, query.queue)
        async for chunk in self.engine.peek(query):
            for part in _parts(chunk, self.settings.buff_size):
                await context.write(write_peeked(part))

    def open(self) -> None:
        """Begin to serve: the engine is ready."""
        self._open = True

    def drain(self) -> None:
        """Refuse new messages and consumers; end each stream as soon as everything it holds is settled."""
        self._draining = True
        for delivery in list(self._deliveries):
            delivery.stop()

    def end_streams(self) -> None:
        """End every stream now; what they hold goes back."""
        for delivery in list(self._deliveries):
            delivery.stop(now=True)

    def end_revoked(self) -> None:
        """End the streams of tokens that are no longer valid as they were; what they hold goes back."""
        assert self.guard is not None
        for delivery, grant in list(self._deliveries.items()):
            if grant is None or not self.guard.tokens.valid(grant):
                delivery.stop(now=True)

    def _check(self, right: Right, *queues: str) -> None:
        """Check that the call has `right` on `queues`, where there is a guard to ask."""
        if self.guard is not None:
            self.guard.check(right, queues)

    def _refuse_when_draining(self) -> None:
        if self._draining:
            raise Unavailable("the server is stopping", "SHUTTING_DOWN")


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
