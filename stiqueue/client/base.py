"""The methods of the blocking clients, `SQClient` and `LocalSQClient`."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, TypeVar, overload

from stiqueue.arguments import check_kind, named
from stiqueue.client import admin, calling, dequeue, enqueue, look, single, soon, tidy
from stiqueue.client.consume import Loop
from stiqueue.client.options import Options
from stiqueue.client.session import M, Session
from stiqueue.client.transport import Transport
from stiqueue.client.waiting.concurrency import Concurrency
from stiqueue.client.waiting.threads import Threads, run
from stiqueue.message import Message

C = TypeVar("C", bound="BaseClient")
P = ParamSpec("P")
T = TypeVar("T")


class Setting(Generic[T]):
    """An option of a client as an attribute to read and set."""

    def __set_name__(self, owner: type, name: str) -> None:
        """Note the option's name."""
        self._name = name

    @overload
    def __get__(self, client: None, owner: type) -> Setting[T]: ...

    @overload
    def __get__(self, client: SessionClient[Any], owner: type) -> T: ...

    def __get__(self, client: SessionClient[Any] | None, owner: type) -> T | Setting[T]:
        """Return it."""
        if client is None:
            return self
        value: T = getattr(client._session.options, self._name)
        return value

    def __set__(self, client: SessionClient[Any], value: T) -> None:
        """Use another from now on."""
        setattr(client._session.options, self._name, value)


class SessionClient(Generic[M]):
    """A client with a session: the part that clients of threads and of tasks share."""

    queue = Setting[str]()
    ack_required = Setting[bool]()
    auto_ack = Setting[bool]()
    timeout = Setting[float]()
    ack_timeout = Setting["float | None"]()
    retry_delay = Setting[float]()
    consumer = Setting[str]()
    prefetch = Setting[int]()
    window = Setting[int]()
    logger = Setting[logging.Logger]()

    _concurrency: ClassVar[Callable[[], Concurrency]]
    _message: type[M]

    def __init__(self, options: Options, make_transport: Callable[[Options, Concurrency], Transport]) -> None:
        """Remember how to connect; nothing is opened."""
        self._session = Session(options, type(self)._concurrency(), self._message, make_transport)

    def backoff_of(self, message: Message) -> float:
        """Return how many seconds `message` waits when it is requeued: doubled at each attempt, up to an hour."""
        check_kind("message", message, Message, "what deq() returned", "BAD_MESSAGE")
        return self._session.options.retry_delay_of(message)


def session_of(client: SessionClient[M]) -> Session[M]:
    """Return the session of `client`, for code that is built on clients."""
    return client._session


def blocking(
    function: Callable[Concatenate[Session[Message], P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[BaseClient, P], T]:
    """Turn a function written for every client into a blocking method."""

    def method(self: BaseClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(function(self._session, *args, **kwargs))

    document(method, function)
    return method


def document(method: Any, function: Callable[..., Any]) -> None:
    """Give a method the name, docstring and signature of `function`, which takes a session instead of `self`."""
    functools.update_wrapper(method, function)
    told = inspect.signature(function)
    _, *others = told.parameters.values()
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    method.__signature__ = told.replace(parameters=[itself, *others])


class Messages(Iterator[Message]):
    """The iterator that `consume` returns. For one thread, except `finish`."""

    def __init__(self, loop: Loop[Message]) -> None:
        """Iterate over the messages of `loop`."""
        self._loop = loop
        self._steps = self._run(loop)

    @staticmethod
    def _run(loop: Loop[Message]) -> Generator[Message, None, None]:
        try:
            while (messages := run(loop.messages())) is not None:
                yield from messages
        finally:
            run(loop.quit())

    def __iter__(self) -> Iterator[Message]:
        return self._steps  # which takes a fifth of the time of `__next__` below, and closes itself after a `break`

    def __next__(self) -> Message:
        return next(self._steps)

    def close(self) -> None:
        """End the loop: give back its current message and those sent ahead."""
        self._steps.close()

    def finish(self) -> None:
        """Take no more messages; those sent ahead go back to the queue at once. From any thread.

        Messages that the loop has handed out stay leased, and the loop ends once they are settled. Go on with it until
        then; otherwise it keeps the last messages.
        """
        run(self._loop.retire())


class BaseClient(SessionClient[Message]):
    """The methods of blocking clients. Thread-safe; connects on first use; may be used on both sides of a `fork`."""

    _concurrency = Threads
    _message = Message

    enq = blocking(enqueue.enq)
    enq_many = blocking(enqueue.enq_many)
    enq_and_ack = blocking(enqueue.enq_and_ack)
    enq_soon = blocking(soon.returning(Future[int], soon.enq_soon))
    flush = blocking(soon.flush)
    ack = blocking(dequeue.ack)
    cnt = blocking(look.cnt)
    counts = blocking(look.counts)
    queues = blocking(look.queues)
    peek = blocking(look.peek)
    peek_messages = blocking(look.peek_messages)
    purge = blocking(tidy.purge)
    redrive = blocking(tidy.redrive)
    cancel = blocking(single.cancel)
    reschedule = blocking(single.reschedule)
    replace = blocking(single.replace)
    pause = blocking(admin.pause)
    resume = blocking(admin.resume)
    settings = blocking(admin.settings)
    all_settings = blocking(admin.all_settings)
    configure = blocking(admin.configure)
    call = blocking(calling.call)
    disconnect = blocking(Session.disconnect)

    @overload
    def deq(self, timeout: None = None, *, queue: str | None = None) -> Message: ...

    @overload
    def deq(self, timeout: float | None, *, queue: str | None = None) -> Message | None: ...

    def deq(self, timeout: float | None = None, *, queue: str | None = None) -> Message | None:
        """See `stiqueue.client.dequeue.deq`."""
        message = dequeue.next_ahead(self._session, timeout, queue)
        return run(dequeue.deq(self._session, timeout, queue=queue)) if message is None else message

    document(deq, dequeue.deq)

    def take(self, message_id: int, *, queue: str | None = None) -> Message | None:
        """See `stiqueue.client.single.take`."""
        return run(single.take(self._session, message_id, queue=queue))

    document(take, single.take)

    @named("consume")
    def consume(
        self, prefetch: int = 1, timeout: float | None = None, *, queue: str | None = None, resume: bool = True
    ) -> Messages:
        """Iterate over messages; each is acked when the loop asks for the next one.

        A loop that ends by ``break`` or an exception gives its last message back, unless you settled it, and the
        prefetched ones. Ends after `timeout` seconds without a message; by default it goes on for ever, also across a
        restart of the server. With ``auto_ack=False`` you ack each message yourself.

        Args:
            prefetch: how many messages are sent ahead, 1..10,000; more is faster, fewer share better among consumers.
            timeout: seconds to wait for a message; 0: take only what is ready now; default: for ever.
            queue: the queue; default: the client's.
            resume: False ends the loop by `Unavailable` when the connection is lost: for a program that works on
                several messages at a time and must know that their leases are gone.

        Raises:
            InvalidRequest: an argument has the wrong type or is out of range; raised at once, not by the loop.
            Unavailable: the server stayed away for the client's `timeout`.
        """
        return Messages(Loop(self._session, prefetch, timeout, queue, resume))

    def close(self) -> None:
        """Ack what `deq` returned (with `auto_ack`) and close the client for good. Safe to call twice.

        First waits for the messages of `enq_soon`, for up to the client's `timeout`. Once everything is closed, raises
        the first failure of these that nobody has been told.
        """
        run(self._session.close())

    def __enter__(self: C) -> C:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close. After an exception, give messages back instead of acking them, and log failures."""
        run(self._session.close(ack=kind is None))
