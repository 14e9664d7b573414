"""A worker on a pool of threads: `Worker`."""

from __future__ import annotations

import inspect
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from stiqueue.arguments import no_such_argument
from stiqueue.client.base import BaseClient, session_of
from stiqueue.client.consume import Loop
from stiqueue.client.enqueue import body_of
from stiqueue.client.holding import Holding
from stiqueue.client.remote import ARGUMENTS
from stiqueue.client.tracing import processing
from stiqueue.client.waiting.threads import run
from stiqueue.errors import Closed, InvalidRequest, LeaseStale, Reject, Unavailable
from stiqueue.limits import MAX_PREFETCH
from stiqueue.message import Message
from stiqueue.sqclient import SQClient

REASON_CHARACTERS = 256
"""How much of a `Reject`'s text is kept: at most 1 KiB of UTF-8."""
REFUSED_SECONDS = 1.0
"""The delay with which a message goes back whose settlement the server refused."""


class Worker:
    """Calls `handler` for each message of a queue, in a pool of threads: ``Worker(print, "jobs", threads=4).run()``.

    When the handler returns, the worker acks the message. When it raises `Reject`, the message becomes a dead letter;
    when it raises anything else, the message is tried again after `retry_delay` seconds (1), doubled at each attempt up
    to an hour. With `max_attempts`, a message becomes a dead letter after that many failures. A worker never holds more
    messages than it has threads. `options` are those of `SQClient`, such as host and port; or give a `client`.
    """

    def __init__(
        self,
        handler: Callable[[Message], object],
        queue: str | None = None,
        threads: int = 8,
        *,
        max_attempts: int = 0,
        client: BaseClient | None = None,
        **options: Any,
    ) -> None:
        """Describe the worker; nothing is opened before `run`.

        Args:
            handler: called with each message, in any thread. Not a coroutine or generator function: their bodies would
                not run.
            queue: the queue; by default the one of `client`, or "default".
            threads: how many messages it works on at a time, 1..10,000.
            max_attempts: after how many failures a message becomes a dead letter, with the last error as its reason; 0:
                the server's `--max-attempts` alone decides.
            client: an `SQClient` or a `LocalSQClient` made with ``auto_ack=False``, which stays open. Its own
                `retry_delay` applies. Default: an `SQClient` of the worker's own, which `run` closes.
            options: those of `SQClient` without a `client`; `retry_delay` is 1 second by default.

        Raises:
            InvalidRequest: an argument is out of range.
            TypeError: there is no such option.
        """
        unknown = options.keys() - ARGUMENTS
        if unknown:
            raise no_such_argument("Worker", unknown, [*inspect.signature(Worker).parameters, *ARGUMENTS])
        _check_handler(handler)
        if type(threads) is not int or not 1 <= threads <= MAX_PREFETCH:
            raise InvalidRequest(f"threads: {threads!r} is not an integer within 1 to {MAX_PREFETCH}", "BAD_OPTION")
        if not options.get("ack_required", True):
            raise InvalidRequest("ack_required: a worker settles what it is given", "BAD_OPTION")
        if type(max_attempts) is not int or max_attempts < 0:
            raise InvalidRequest(f"max_attempts: {max_attempts!r} is not a whole number from 0", "BAD_OPTION")
        self._handler, self._threads, self._is_stopping = handler, threads, False
        self._max_attempts = max_attempts
        self._owned = None if client is not None else _client(queue, options)
        self._client: BaseClient = self._owned or _given(client, options)
        self._queue = queue
        self._loop = self._subscription(None)  # refuses a bad queue now
        self._held: set[str] = set()  # leases of messages in work; each operation on it is atomic
        self._failure: BaseException | None = None

    def _subscription(self, timeout: float | None) -> Loop[Message]:
        return Loop(session_of(self._client), self._threads, timeout, self._queue)

    def run(self, timeout: float | None = None) -> None:
        """Work until `stop`, SIGTERM or Ctrl-C, then finish the messages in work.

        Args:
            timeout: also end after this many seconds without a message and with none in work; 0: once no message is
                ready. Default: wait for ever.

        Raises:
            InvalidRequest: `timeout` is out of range.
            Unavailable: the server stayed away for the client's `timeout`.
            Closed: the client is closed; that of the worker's own is, after the first `run`.
        """
        self._loop, self._failure = self._subscription(timeout), None
        in_main = threading.current_thread() is threading.main_thread()
        before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT) if in_main}

        def on_signal(number: Any, _: object) -> None:
            signal.signal(number, before[number])  # a second signal has its former effect
            self.stop()

        for number in before:
            signal.signal(number, on_signal)
        consuming = threading.Thread(target=self._consume, name="stiqueue-worker", daemon=True)
        consuming.start()
        try:
            while consuming.is_alive() and not self._is_stopping:
                consuming.join(0.1)  # short, because a signal just before a wait does not end it
            if self._is_stopping:
                run(self._loop.finish(list(self._held)))
            consuming.join()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self._is_stopping = False
            if self._owned is not None:
                self._owned.close()
            else:
                run(self._loop.quit())
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Let `run` return once the messages in work are finished. From any thread, also from a signal handler."""
        self._is_stopping = True

    def _consume(self) -> None:
        with ThreadPoolExecutor(self._threads, "stiqueue-worker") as pool:
            try:
                while (messages := run(self._loop.messages())) is not None:
                    leases, holds = self._loop.leases, self._loop.holds
                    assert leases is not None  # the stream has just delivered messages
                    for message in messages:
                        self._held.add(message.lease_id)
                        pool.submit(self._work, message, leases, holds)
            except BaseException as error:
                self._failure = error

    def _work(self, message: Message, leases: Holding[Message], holds: Callable[[str], bool]) -> None:
        """Handle and settle `message`. Frees its lease and this thread, whatever goes wrong."""
        try:
            self._settle(message, self._handle(message, holds), leases, holds)
        except BaseException as error:  # a defect, ours or the logger's: `run` raises it, all messages go back
            self._failure = self._failure or error
            self._is_stopping = True
        finally:
            self._held.discard(message.lease_id)
            if self._failure and not self._held:  # a message that nobody settles would keep the stream open
                self._loop.interrupt()

    def _handle(self, message: Message, holds: Callable[[str], bool]) -> Callable[[], bool]:
        """Call the handler; return the function that settles `message`."""
        if self._is_stopping or not holds(message.lease_id):  # leave it to others
            return partial(message.requeue, untouched=True)
        try:
            with processing(message):
                returned = self._handler(message)
                _check_ran(returned)
                answer = body_of(b"" if returned is None else returned) if message.wants_reply else None  # type: ignore[arg-type]
        except Reject as error:
            if message.wants_reply:
                return partial(message.reply_error, error)
            return partial(message.dead_letter, _reason(error))
        except BaseException as error:
            settle: Callable[[], bool]
            if message.wants_reply:
                what_follows, settle = "its caller is told", partial(message.reply_error, error)
            elif 0 < self._max_attempts <= message.attempt:
                what_follows, settle = "rejected", partial(message.dead_letter, reason_of(error))
            else:
                what_follows, settle = "given back", message.requeue
            self._client.logger.exception(
                "%s failed at attempt %d: %s", _name(message), message.attempt, what_follows, extra=_extra(message)
            )
            return settle
        return message.ack if answer is None else partial(_reply, message, answer)

    def _settle(
        self, message: Message, settle: Callable[[], bool], leases: Holding[Message], holds: Callable[[str], bool]
    ) -> None:
        """Settle `message` unless the handler did; repeat until the server has answered."""
        log, name, extra = self._client.logger.warning, _name(message), _extra(message)
        back = partial(message.requeue, REFUSED_SECONDS)
        while leases.is_unsettled(message):
            try:
                if not settle():
                    log("could not settle %s, it is delivered again: its lease had expired", name, extra=extra)
                return
            except Unavailable as error:
                # A server that does not answer may keep the stream open, and with it the lease.
                if self._is_stopping or self._failure or not holds(message.lease_id):
                    log("could not settle %s, it is delivered again: %s", name, error, extra=extra)
                    return
                log("could not settle %s yet: %s", name, error, extra=extra)
            except Closed as error:
                log("could not settle %s, it is delivered again: %s", name, error, extra=extra)
                return
            except LeaseStale:  # of an answer
                log("could not settle %s, it is delivered again: its lease had expired", name, extra=extra)
                return
            except Exception as error:
                log("could not settle %s, it is given back: %s", name, error, extra=extra)
                if settle is back:  # then the end of its stream gives it back
                    self._loop.interrupt()
                    return
                settle = back


def _client(queue: str | None, options: dict[str, Any]) -> SQClient:
    """Return a worker's own client."""
    return SQClient(queue="default" if queue is None else queue, **{"retry_delay": 1.0} | options | {"auto_ack": False})


def _given(client: Any, options: dict[str, Any]) -> BaseClient:
    """Return the client that a worker was given; refuse one that cannot serve it."""
    if not isinstance(client, BaseClient):
        raise InvalidRequest(f"client: {client!r} is not an SQClient or a LocalSQClient", "BAD_OPTION")
    if options:
        raise InvalidRequest(f"{', '.join(sorted(options))}: set it on the client, not on the worker", "BAD_OPTION")
    if client.auto_ack or not client.ack_required:
        raise InvalidRequest("client: a worker settles its messages; make the client with auto_ack=False", "BAD_OPTION")
    return client


def _name(message: Message) -> str:
    return f"message {message.id} of {message.queue}"


def _extra(message: Message) -> dict[str, object]:
    return {"queue": message.queue, "message_id": message.id}


def _reply(message: Message, answer: bytes) -> bool:
    """Answer a call. An answer that the server refuses, such as a too large one, becomes an error."""
    try:
        message.reply(answer)
    except InvalidRequest as error:
        message.reply_error(error)
    return True


def reason_of(error: BaseException) -> str:
    """Return the class and the text of a failure, as the reason of a dead letter."""
    return f"{type(error).__name__}: {_reason(error)}"[:REASON_CHARACTERS]


def _reason(error: BaseException) -> str:
    try:
        return str(error)[:REASON_CHARACTERS]
    except Exception:  # raised by a user's class
        return type(error).__name__[:REASON_CHARACTERS]


def _check_handler(handler: Any) -> None:
    """Refuse a handler whose body would not run when it is called."""
    if not callable(handler):
        raise InvalidRequest(f"handler: {handler!r} cannot be called", "BAD_OPTION")
    for function in (handler, getattr(handler, "func", None), type(handler).__call__):
        if inspect.iscoroutinefunction(function):
            raise InvalidRequest(
                "handler: an `async def` function would not run in a thread; call `asyncio.run` in a plain function,"
                " or use `AsyncSQClient.consume`",
                "BAD_OPTION",
            )
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise InvalidRequest("handler: a generator function would not run; use a plain function", "BAD_OPTION")


def _check_ran(returned: object) -> None:
    """Refuse a result that shows that the handler's body did not run."""
    if inspect.iscoroutine(returned) or inspect.isgenerator(returned):
        returned.close()
    elif not inspect.isasyncgen(returned):
        return
    raise TypeError(f"the handler returned a {type(returned).__name__}, which nobody runs")
