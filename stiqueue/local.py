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
from stiqueue.client import BaseClient
from stiqueue.concurrency import Concurrency
from stiqueue.engines.consumer import LocalConsumer
from stiqueue.engines.local import LocalEngine
from stiqueue.engines.opening import open_engine
from stiqueue.entry import Peeked
from stiqueue.errors import StiQueueError, Unavailable
from stiqueue.lease import Lease, Owner
from stiqueue.message import Batch, Counts, Delivered, PeekedMessage, PeekQuery, Receipt, Settlement, Subscription
from stiqueue.options import LOGGER, Options
from stiqueue.threads import run
from stiqueue.transport import Acked, Exchanged, Look, Stream

MAX_MESSAGE_BYTES = (4 << 20) - limits.MESSAGE_ROOM
"""What a server allows by default, so that what works here works there."""

T = TypeVar("T")


class LocalSQClient(BaseClient):
    """`SQClient`'s names on a queue in this process, without a server: start here, change one line later.

    Example:
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
        logger: logging.Logger | None = None,
        engine: LocalEngine | None = None,
    ) -> None:
        """Make a queue, or with `engine` use an existing one.

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
            logger: where it logs; default: the logger "stiqueue.client".
            engine: the engine to share with other clients of this process; it is left open by `close`.
        """
        options = Options(
            queue=queue,
            ack_required=ack_required,
            auto_ack=auto_ack,
            ack_timeout=ack_timeout,
            retry_delay=retry_delay,
            consumer=consumer,
            logger=logger or LOGGER,
        )
        self._owns_engine = engine is None
        self._engine = engine or open_engine(data, max_attempts=max_attempts)
        if engine is None:
            self._engine.start_now()
        super().__init__(options, partial(LocalTransport, self._engine))

    def close(self) -> None:
        """Ack what `deq` returned (with `auto_ack`) and close the client for good; what was in memory is gone."""
        super().close()
        if self._owns_engine:
            self._engine.close_now()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self._owns_engine:
            self._engine.close_now()

    def __repr__(self) -> str:
        return f"LocalSQClient(queue={self.queue!r})"


class LocalStream:
    """A consumer of the engine; see `stiqueue.transport.Stream`."""

    def __init__(self, consumer: LocalConsumer) -> None:
        self._consumer = consumer
        self._cancelled = False

    async def next(self) -> Sequence[Delivered] | None:
        messages = self._consumer.take_waiting()
        if messages is None and self._cancelled:
            raise Unavailable("the subscription was cancelled")
        return messages

    async def connected(self) -> bool:
        return True

    def cancel(self) -> None:
        self._cancelled = True
        self._consumer.close()


class LocalLook:
    """A look at a queue of the engine; see `stiqueue.transport.Look`."""

    def __init__(self, chunks: Iterator[list[PeekedMessage]]) -> None:
        self._chunks = chunks

    async def next(self) -> list[PeekedMessage] | None:
        return next(self._chunks, None)

    def cancel(self) -> None:
        """Nothing is under way between two chunks."""


class LocalTransport:
    """The five operations on an engine of this process; see `stiqueue.transport.Transport`. Nothing is ever absent."""

    def __init__(self, engine: LocalEngine, options: Options, concurrency: Concurrency) -> None:
        self._engine = engine

    async def enq(self, batch: Batch, timeout: float) -> Receipt:
        limits.check_batch(batch, MAX_MESSAGE_BYTES)
        return _result(self._engine.submit(batch), timeout)

    def enq_soon(self, batch: Batch, timeout: float) -> Callable[[], Coroutine[Any, Any, Receipt]]:
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

    async def exchange(self, lease_id: str) -> Exchanged:
        given = self._engine.exchange_now(lease_id)
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
        return LocalStream(self._engine.subscribe(subscription))

    async def close(self) -> None:
        """Nothing to close: the engine outlives a connection."""


def _result(answer: T | Future[T], timeout: float) -> T:
    """Return an answer that is there, or wait for it."""
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
    """Return a peeked message as a user sees it: the entry in the shape of a delivery that nobody has."""
    entry = peeked.entry
    seen = Lease("", entry._replace(attempt=entry.attempt - 1), Owner(), 0.0)
    return PeekedMessage.show(
        seen,
        queue,
        peeked.state,
        peeked.consumer,
        peeked.state_age_ms,
        peeked.ready_time_ms,
        entry.properties.expires_ms or 0,
    )
