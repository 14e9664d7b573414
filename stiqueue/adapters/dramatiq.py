"""StiQueue as the broker of Dramatiq: `StiQueueBroker`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable
from queue import Empty, SimpleQueue
from typing import Any

from dramatiq.broker import Broker, Consumer, MessageProxy
from dramatiq.errors import ConnectionClosed, QueueJoinTimeout, QueueNotFound
from dramatiq.message import Message as Task

from stiqueue import Closed, Message, SQClient, StiQueueError, Unavailable
from stiqueue.worker import REASON_CHARACTERS, reason_of

logger = logging.getLogger("stiqueue.dramatiq")

POLL_SECONDS = 0.05
"""How often `join`, which is for tests, asks whether a queue is empty."""
JOIN_SECONDS = 5.0
"""How long the end of a consumer waits for its thread."""


class StiQueueBroker(Broker):
    """Enqueues messages in queues of a StiQueue server: ``dramatiq.set_broker(StiQueueBroker("127.0.0.1", 1234))``.

    Delays are the server's: a message that waits occupies no worker. A message that fails for good is a dead letter, in
    the queue ``<queue>.dead``. The option ``broker_priority`` of an actor or a message (0..255, higher first) orders
    the queue; Dramatiq's own ``priority`` orders what a worker has fetched.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 1234, *, middleware: list[Any] | None = None, **options: Any
    ) -> None:
        """Remember where the server is; nothing is opened before the first message.

        Args:
            host: the server's address.
            port: its port.
            middleware: that of `dramatiq.Broker`.
            options: those of `SQClient`, such as `tls` and `token`.

        Raises:
            InvalidRequest: an argument has the wrong type or is out of range.
            TypeError: there is no such option.
        """
        super().__init__(middleware=middleware)
        self.actor_options.add("broker_priority")
        self.queues: dict[str, None] = {}
        self._client = SQClient(host, port, **options, auto_ack=False)

    def close(self) -> None:
        """Disconnect; messages that are unsettled go back to their queues."""
        self._client.close()

    def declare_queue(self, queue_name: str) -> None:
        """Make a queue known; in the server it exists from its first message."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues[queue_name] = None
            self.emit_after("declare_queue", queue_name)

    def enqueue(self, message: Task[Any], *, delay: int | None = None) -> Task[Any]:
        """Enqueue `message`, to be delivered after `delay` milliseconds; return once the server has it.

        Raises:
            ConnectionClosed: the server stayed away for the client's `timeout`.
            QueueNotFound: the queue was never declared.
            InvalidRequest: the delay or ``broker_priority`` is out of range.
        """
        self._check(message.queue_name)
        self.emit_before("enqueue", message, delay)
        priority = message.options.get("broker_priority")
        if priority is None and message.actor_name in self.actors:
            priority = self.actors[message.actor_name].options.get("broker_priority")
        try:
            self._client.enq(
                message.encode(), queue=message.queue_name, priority=priority or 0, delay=(delay or 0) / 1000
            )
        except (Unavailable, Closed) as error:
            raise ConnectionClosed(str(error)) from error
        self.emit_after("enqueue", message, delay)
        return message

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> Consumer:
        """Return an iterator over messages of `queue_name`, with None after `timeout` milliseconds without one."""
        self._check(queue_name)
        return StiQueueConsumer(self._client, queue_name, prefetch, timeout / 1000)

    def flush(self, queue_name: str) -> None:
        """Drop the messages of a queue that are ready; those that are delayed or worked on stay."""
        self._check(queue_name)
        self._client.purge(queue=queue_name)

    def flush_all(self) -> None:
        """Do that for all declared queues."""
        for queue_name in self.queues:
            self.flush(queue_name)

    def join(self, queue_name: str, *, timeout: int | None = None) -> None:
        """Wait until a queue has no message, also none that is delayed or worked on. For tests.

        Raises:
            QueueJoinTimeout: it still has some after `timeout` milliseconds.
        """
        self._check(queue_name)
        deadline = None if timeout is None else time.monotonic() + timeout / 1000
        while True:
            counts = self._client.counts(queue=queue_name)
            if not (counts.ready or counts.leased or counts.delayed):
                return
            if deadline is not None and time.monotonic() >= deadline:
                raise QueueJoinTimeout(queue_name)
            time.sleep(POLL_SECONDS)

    def _check(self, queue_name: str) -> None:
        if queue_name not in self.queues:
            raise QueueNotFound(queue_name)


class StiQueueMessage(MessageProxy):
    """A message of Dramatiq, and the delivery that brought it."""

    def __init__(self, message: Task[Any], delivered: Message) -> None:
        """Keep both."""
        super().__init__(message)
        self.delivered = delivered

    @property
    def reason(self) -> str:
        """Why it failed."""
        error = self._exception
        return "failed" if error is None else reason_of(error)


class StiQueueConsumer(Consumer):
    """The messages of one queue, which a thread of its own reads from a stream."""

    def __init__(self, client: SQClient, queue_name: str, prefetch: int, seconds: float) -> None:
        """Begin to read."""
        self._seconds = seconds
        self._messages = client.consume(prefetch, queue=queue_name)
        self._read: SimpleQueue[Message | Exception | None] = SimpleQueue()
        """None: nothing follows."""
        self._thread = threading.Thread(target=self._run, name=f"stiqueue-{queue_name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for message in self._messages:
                self._read.put(message)
        except Exception as error:
            self._read.put(error)
        self._read.put(None)

    def __next__(self) -> StiQueueMessage | None:
        """Return the next message; None if there was none for a while.

        Raises:
            ConnectionClosed: the server is away.
        """
        try:
            delivered = self._read.get(timeout=self._seconds)
        except Empty:
            return None
        if delivered is None:
            raise StopIteration
        if isinstance(delivered, (Unavailable, Closed)):
            raise ConnectionClosed(str(delivered)) from delivered
        if isinstance(delivered, Exception):
            raise delivered
        try:
            return StiQueueMessage(_task(delivered), delivered)
        except Exception as error:
            logger.error("message %d of %s is not a message of Dramatiq: %s", delivered.id, delivered.queue, error)
            _settle(delivered.dead_letter, f"no message of Dramatiq: {error}"[:REASON_CHARACTERS])
            return None

    def ack(self, message: Any) -> None:
        """Settle a message that is done."""
        if not _settle(message.delivered.ack):
            logger.warning("message %s was acked too late: it is delivered again", message.message_id)

    def nack(self, message: Any) -> None:
        """Move a message that failed to the dead letters."""
        if not _settle(message.delivered.dead_letter, message.reason):
            logger.warning("message %s was rejected too late: it is delivered again", message.message_id)

    def requeue(self, messages: Iterable[Any]) -> None:
        """Give back messages that nobody has begun."""
        for message in messages:
            _settle(message.delivered.requeue, 0.0, untouched=True)

    def close(self) -> None:
        """Read nothing more: what was sent ahead goes back to the queue."""
        try:
            self._messages.finish()
        except StiQueueError as error:
            logger.debug("what was sent ahead is given back by the end of the stream: %s", error)
        while True:
            try:
                delivered = self._read.get_nowait()
            except Empty:
                break
            if isinstance(delivered, Message):
                _settle(delivered.requeue, 0.0, untouched=True)
        self._thread.join(JOIN_SECONDS)


def _settle(settle: Any, *arguments: Any, **options: Any) -> bool:
    try:
        return bool(settle(*arguments, **options))
    except Unavailable as error:
        raise ConnectionClosed(str(error)) from error


def _task(delivered: Message) -> Task[Any]:
    """Return what a message has, of the queue that it came from: it may have been moved there.

    Raises:
        Exception: something else wrote it.
    """
    task: Task[Any] = Task.decode(bytes(delivered))
    shape = (task.actor_name, str), (task.args, (list, tuple)), (task.kwargs, dict), (task.options, dict)
    if not all(isinstance(value, kind) for value, kind in shape):
        raise TypeError("its fields are of other types")
    return task.copy(queue_name=delivered.queue)
