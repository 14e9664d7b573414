"""A queue without a server: `LocalSQClient`, for the threads of one process."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from stiqueue import limits
from stiqueue.arguments import check_kind, check_whole
from stiqueue.client.base import BaseClient
from stiqueue.client.options import LOGGER, Options
from stiqueue.client.transport import Acked, Exchanged, Look, Stream
from stiqueue.client.waiting.concurrency import Concurrency
from stiqueue.client.waiting.threads import run
from stiqueue.engines.local.consumer import LocalConsumer
from stiqueue.engines.local.engine import LocalEngine
from stiqueue.engines.opening import open_engine
from stiqueue.errors import StiQueueError, Unavailable
from stiqueue.message import Batch, Counts, Delivered, PeekedMessage, PeekQuery, Receipt, Settlement, Subscription
from stiqueue.queue_settings import QueueSettings, SettingsReport
from stiqueue.rules.entry import Peeked

MAX_MESSAGE_BYTES = (4 << 20) - limits.MESSAGE_ROOM
"""The default limit of a server, so that messages that work here work there."""

T = TypeVar("T")


class LocalSQClient(BaseClient):
    """`SQClient`'s methods on queues in this process, without a server: start here, change one line later.

    For example:

        client = LocalSQClient()
        client.enq("Hello, World!")
        print(client.deq().decode())
    """

    def __init__(
        self,
        data: str | os.PathLike[str] | None = None,
        *,
        queue: str = "default",
        ack_required: bool = True,
        auto_ack: bool = True,
        ack_timeout: float | None = None,
        max_attempts: int = 0,
        retry_delay: float = 0.0,
        consumer: str = "",
        prefetch: int = 1,
        window: int = 1_000,
        logger: logging.Logger | None = None,
        engine: LocalEngine | None = None,
    ) -> None:
        """Open queues, or with `engine` share existing ones.

        Args:
            data: the data file; None keeps messages in memory.
            queue: the queue of all calls that name none.
            ack_required: False makes every delivery final.
            auto_ack: False leaves settling to `Message.ack` and its kin: nothing is acked implicitly.
            ack_timeout: seconds until an unsettled message is given back; default: never.
            max_attempts: deliveries before a message moves to ``<queue>.dead``; 0: no limit.
            retry_delay: seconds that a requeued message waits after its first attempt; doubled after each
                further one, up to an hour. 0: not at all.
            consumer: a name for people to see.
            prefetch: how many messages the server sends ahead to each thread or task that calls `deq`, 1 to 10,000.
                With more than 1 acks travel in the background, several together. Only with `ack_required` and
                `auto_ack`; otherwise 1.
            window: how many messages of `enq_soon` may be unconfirmed, 1 to 1,000,000.
            logger: where it logs; default: the logger "stiqueue.client".
            engine: the engine to share with other clients of this process; `close` leaves it open.

        Raises:
            InvalidRequest: an argument has the wrong type or is out of range.
        """
        if data is not None:
            check_kind("data", data, (str, os.PathLike), "the path of the data file, or None for memory")
        if engine is not None:
            check_kind("engine", engine, LocalEngine, "the engine of an SQServer or a LocalSQClient")
        check_whole("max_attempts", max_attempts, 0, 1 << 30, "BAD_OPTION")
        options = Options(
            queue=queue,
            ack_required=ack_required,
            auto_ack=auto_ack,
            ack_timeout=ack_timeout,
            retry_delay=retry_delay,
            consumer=consumer,
            prefetch=prefetch,
            window=window,
            logger=LOGGER if logger is None else logger,
        )
        self._owns_engine = engine is None
        self._engine = engine or open_engine(data, max_attempts=max_attempts)
        if engine is None:
            self._engine.start_now()
        reaches = "" if data is None else os.fspath(data)
        super().__init__(options, partial(LocalTransport, self._engine, reaches, self._owns_engine))
        self._session.connected()  # from now on, the engine is closed if this client is dropped

    def close(self) -> None:
        """Ack the messages that `deq` returned (with `auto_ack`) and close for good. Messages in memory are gone."""
        try:
            super().close()
        finally:
            if self._owns_engine:
                self._engine.close_now()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            if self._owns_engine:
                self._engine.close_now()

    def __repr__(self) -> str:
        return f"LocalSQClient(queue={self.queue!r})"


class LocalStream:
    """A consumer of the engine; see `stiqueue.client.transport.Stream`."""

    def __init__(self, engine: LocalEngine, consumer: LocalConsumer, open_consumers: set[LocalConsumer]) -> None:
        self._engine = engine
        self._consumer = consumer
        self._open_consumers = open_consumers
        self._cancelled = False
        open_consumers.add(consumer)

    async def next(self) -> Sequence[Delivered] | None:
        messages = self._consumer.take_waiting()
        if messages is None and self._cancelled:
            raise Unavailable("the subscription was cancelled")
        return messages

    @property
    def leased_ids(self) -> Sequence[int]:
        return self._consumer.leased_ids

    @property
    def is_over(self) -> bool:
        return self._cancelled or self._consumer.closed

    def holding(self) -> Callable[[str], bool]:
        engine = self._engine
        return lambda lease_id: engine.queue_of(lease_id) is not None

    async def finish(self, lease_ids: Sequence[str], timeout: float) -> list[str]:
        self._consumer.finish()
        return [lease_id for lease_id in lease_ids if self._engine.queue_of(lease_id) is None]

    async def connected(self) -> bool:
        return True

    def cancel(self) -> None:
        self._cancelled = True
        self._open_consumers.discard(self._consumer)
        self._consumer.close()


class LocalLook:
    """A look at a queue of the engine; see `stiqueue.client.transport.Look`."""

    def __init__(self, chunks: Iterator[list[PeekedMessage]]) -> None:
        self._chunks = chunks

    async def next(self) -> list[PeekedMessage] | None:
        return next(self._chunks, None)

    def cancel(self) -> None:
        """Nothing to end between two chunks."""


class LocalTransport:
    """The five operations on an engine of this process, which is never absent; see `Transport`."""

    def __init__(
        self, engine: LocalEngine, reaches: str, owns_engine: bool, options: Options, concurrency: Concurrency
    ) -> None:
        self._engine = engine
        self.reaches = reaches
        self._owns_engine = owns_engine
        self._open_consumers: set[LocalConsumer] = set()

    async def enq(self, batch: Batch, timeout: float) -> Receipt:
        limits.check_batch(batch, MAX_MESSAGE_BYTES)
        return _result(self._engine.submit(batch), timeout)

    def named(self, batch: Batch) -> Batch:
        return batch  # answers are never lost

    def begin_enq(self, batch: Batch, timeout: float) -> Callable[[], Coroutine[Any, Any, Receipt]]:
        receipt = run(self.enq(batch, timeout))

        async def ready() -> Receipt:
            return receipt

        return ready

    async def settle(self, settlement: Settlement, timeout: float) -> list[str]:
        limits.check_settlement(settlement)
        return _result(self._engine.settle_now(settlement), timeout)

    def ack_soon(self, lease_id: str, done: Acked) -> None:
        answer = self._engine.settle_now(Settlement([lease_id]))
        if isinstance(answer, Future):
            answer.add_done_callback(lambda stale: done([lease_id], _outcome(stale)))
        else:
            done([lease_id], answer)

    async def exchange(self, lease_id: str, timeout: float) -> Exchanged:
        given = self._engine.exchange(lease_id)
        return Exchanged(given is not None, given or ())

    async def counts(self, queues: Sequence[str], timeout: float) -> list[Counts]:
        return self._engine.counts_now(queues)

    async def peek(self, query: PeekQuery, timeout: float) -> list[PeekedMessage]:
        limits.check_peek(query)
        return [_shown(peeked, query.queue) for chunk in self._engine.peek_now(query) for peeked in chunk]

    def look(self, query: PeekQuery) -> Look:
        limits.check_peek(query)
        return LocalLook([_shown(peeked, query.queue) for peeked in chunk] for chunk in self._engine.peek_now(query))

    def subscribe(self, subscription: Subscription) -> Stream:
        limits.check_subscription(subscription)
        return LocalStream(self._engine, self._engine.subscribe(subscription), self._open_consumers)

    async def configure(self, change: QueueSettings, reset: Sequence[str], timeout: float) -> QueueSettings:
        return _result(self._engine.configure_now(change, reset), timeout)

    async def settings(self, queue: str, timeout: float) -> SettingsReport:
        return self._engine.settings(queue)

    async def close(self) -> None:
        """Nothing to close: the engine outlives connections."""

    async def give_up(self) -> None:
        for consumer in list(self._open_consumers):
            consumer.close()
        if self._owns_engine:
            self._engine.close_now()


def _result(answer: T | Future[T], timeout: float) -> T:
    """Return an answer, or wait for it."""
    if not isinstance(answer, Future):
        return answer
    try:
        return answer.result(timeout)
    except FutureTimeout:
        raise Unavailable(f"the disk did not answer within {timeout:g} s") from None


def _outcome(answer: Future[list[str]]) -> list[str] | StiQueueError:
    error = answer.exception()
    if error is None:
        return answer.result()
    return error if isinstance(error, StiQueueError) else StiQueueError(str(error))


def _shown(peeked: Peeked, queue: str) -> PeekedMessage:
    """Return a peeked message as a user sees it."""
    return PeekedMessage.show(
        peeked,
        queue,
        peeked.state,
        peeked.consumer,
        peeked.state_age_ms,
        peeked.ready_time_ms,
        peeked.entry.properties.expires_ms or 0,
        peeked.blocked,
    )
