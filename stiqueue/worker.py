"""A worker on a pool of threads: `Worker`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from stiqueue.consuming import Loop
from stiqueue.errors import InvalidRequest, LeaseStale, Reject, StiQueueError
from stiqueue.message import Message
from stiqueue.sqclient import SQClient
from stiqueue.threads import run
from stiqueue.tracing import processing


class Worker:
    """Calls `handler` for each message of a queue, in a pool of threads: ``Worker(print, "jobs", threads=4).run()``.

    A message is acked when the handler returns, is a dead letter when it raises `Reject`, and is tried again when it
    raises anything else: after `retry_delay` seconds (1), doubled at each attempt up to an hour. There are never more
    messages here than threads. `options` are those of `SQClient`, such as host and port.
    """

    def __init__(
        self, handler: Callable[[Message], object], queue: str = "default", threads: int = 8, **options: Any
    ) -> None:
        """Describe the worker; nothing is opened before `run`. `InvalidRequest`: an option is out of range."""
        if not options.get("ack_required", True):
            raise InvalidRequest("ack_required: a worker settles what it is given", "BAD_OPTION")
        self._handler, self._threads, self._is_stopping = handler, threads, False
        self._client = SQClient(queue=queue, **{"retry_delay": 1.0} | options | {"auto_ack": False})
        self._loop = Loop(self._client._session, threads, None, None)
        self._held: set[str] = set()  # leases of messages that are worked on; each operation on it is atomic
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Work until `stop` (or SIGTERM, or Ctrl-C) and finish what is under way. `Unavailable`: there is no server."""
        in_main = threading.current_thread() is threading.main_thread()
        before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT) if in_main}

        def on_signal(number: Any, _: object) -> None:
            signal.signal(number, before[number])  # a second one does what it did before
            self.stop()

        for number in before:
            signal.signal(number, on_signal)
        consuming = threading.Thread(target=self._consume, name="stiqueue-worker", daemon=True)
        consuming.start()
        try:
            while consuming.is_alive() and not self._is_stopping:
                consuming.join(0.1)  # no longer: a signal that comes just before a wait does not end it
            if self._is_stopping:
                run(self._loop.finish(list(self._held)))
            consuming.join()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self._client.close()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Let `run` return once what is under way is finished. From any thread, also from a signal handler."""
        self._is_stopping = True

    def _consume(self) -> None:
        with ThreadPoolExecutor(self._threads, "stiqueue-worker") as pool:
            try:
                while (messages := run(self._loop.messages())) is not None:
                    for message in messages:
                        self._held.add(message.lease_id)
                        pool.submit(self._work, message)
            except BaseException as error:
                self._failure = error

    def _work(self, message: Message) -> None:
        name, extra = f"message {message.id} of {message.queue}", {"queue": message.queue, "message_id": message.id}
        settle: Callable[[], bool] = message.ack
        try:
            if self._is_stopping:  # it came too late: it is for others
                settle = partial(message.requeue, 0)
            else:
                with processing(message):
                    self._handler(message)
        except Reject as error:
            settle = partial(message.dead_letter, str(error)[:256])  # at most 1 KiB of UTF-8
        except BaseException:
            self._client.logger.exception("%s failed at attempt %d", name, message.attempt, extra=extra)
            settle = message.requeue
        try:
            if not message._is_settled and not settle():  # by the handler itself, or now
                raise LeaseStale("its lease had expired")
        except StiQueueError as error:
            self._client.logger.warning("could not settle %s, it is delivered again: %s", name, error, extra=extra)
        finally:
            self._held.discard(message.lease_id)
