"""The names that users type, on every client that blocks: `SQClient` and `LocalSQClient`."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, TypeVar, overload

from stiqueue import dequeueing, enqueueing, looking, tidying
from stiqueue.concurrency import Concurrency
from stiqueue.consuming import Loop
from stiqueue.message import Message
from stiqueue.options import Options
from stiqueue.session import M, Session
from stiqueue.threads import Threads, run
from stiqueue.transport import Transport

C = TypeVar("C", bound="BaseClient")
P = ParamSpec("P")
T = TypeVar("T")


class Setting(Generic[T]):
    """A default that a client was made with, as an attribute that can be read and set."""

    def __set_name__(self, owner: type, name: str) -> None:
        """Remember which one."""
        self._name = name

    @overload
    def __get__(self, client: None, owner: type) -> Setting[T]: ...

    @overload
    def __get__(self, client: Client[Any], owner: type) -> T: ...

    def __get__(self, client: Client[Any] | None, owner: type) -> T | Setting[T]:
        """Return it."""
        if client is None:
            return self
        value: T = getattr(client._session.options, self._name)
        return value

    def __set__(self, client: Client[Any], value: T) -> None:
        """Use another from now on."""
        setattr(client._session.options, self._name, value)


class Client(Generic[M]):
    """What clients of threads and clients of tasks have in common."""

    queue = Setting[str]()
    ack_required = Setting[bool]()
    auto_ack = Setting[bool]()
    timeout = Setting[float]()
    ack_timeout = Setting["float | None"]()
    retry_delay = Setting[float]()
    consumer = Setting[str]()
    logger = Setting[logging.Logger]()

    _concurrency: ClassVar[Callable[[], Concurrency]]
    _message: type[M]

    def __init__(self, options: Options, make_transport: Callable[[Options, Concurrency], Transport]) -> None:
        """Remember how to connect; nothing is opened."""
        self._session = Session(options, type(self)._concurrency(), self._message, make_transport)

    def backoff_of(self, message: Message) -> float:
        """Return how many seconds `message` waits when it is requeued: doubled at each attempt, up to an hour."""
        return self._session.options.retry_delay_of(message)


def blocking(
    function: Callable[Concatenate[Session[Message], P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[BaseClient, P], T]:
    """Make a method that blocks of a function that is written for every client."""

    def method(self: BaseClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(function(self._session, *args, **kwargs))

    introduce(method, function)
    return method


def introduce(method: Any, function: Callable[..., Any]) -> None:
    """Give a method the name, the documentation and the arguments of the function that it is made of."""
    functools.update_wrapper(method, function)
    told = inspect.signature(function)
    _, *others = told.parameters.values()
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    method.__signature__ = told.replace(parameters=[itself, *others])


class BaseClient(Client[Message]):
    """The public names. Thread-safe; connects on first use; may be used on both sides of a `fork`."""

    _concurrency = Threads
    _message = Message

    enq = blocking(enqueueing.enq)
    enq_many = blocking(enqueueing.enq_many)
    enq_and_ack = blocking(enqueueing.enq_and_ack)
    deq = blocking(dequeueing.deq)
    ack = blocking(dequeueing.ack)
    cnt = blocking(looking.cnt)
    counts = blocking(looking.counts)
    queues = blocking(looking.queues)
    peek = blocking(looking.peek)
    peek_messages = blocking(looking.peek_messages)
    purge = blocking(tidying.purge)
    redrive = blocking(tidying.redrive)
    disconnect = blocking(Session.disconnect)

    def consume(
        self, prefetch: int = 1, timeout: float | None = None, *, queue: str | None = None
    ) -> Iterator[Message]:
        """Iterate over messages; each is acked when the loop asks for the next one.

        A loop that ends by ``break`` or an exception has not asked: its last message is given back, unless it was
        settled by hand, as are those that were prefetched. Ends after `timeout` seconds without a message; by default
        it goes on for ever, also across a restart of the server. With ``auto_ack=False`` nothing is acked by itself.

        Args:
            prefetch: how many messages are sent ahead, 1..10,000; more is faster, fewer share better among consumers.
            timeout: seconds to wait for a message; 0: take only what is ready now; default: for ever.
            queue: the queue; default: the client's.

        Raises:
            Unavailable: the server stayed away for the client's `timeout`.
        """
        loop = Loop(self._session, prefetch, timeout, queue)
        try:
            while (messages := run(loop.messages())) is not None:
                yield from messages
        finally:
            run(loop.leave())

    def close(self) -> None:
        """Ack what `deq` returned (with `auto_ack`) and close the client for good. Safe to call twice."""
        run(self._session.close())

    def __enter__(self: C) -> C:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; after an exception what `deq` returned is given back instead of acked."""
        run(self._session.close(ack=kind is None))
