"""A channel of kombu: the streams that it reads, and the messages that it has not settled."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from amqp.protocol import queue_declare_ok_t
from kombu.exceptions import ChannelError
from kombu.transport import virtual

from stiqueue import Message, SQClient
from stiqueue.adapters.celery.credit import Credit
from stiqueue.adapters.celery.envelope import payload, posting
from stiqueue.adapters.celery.log import logger
from stiqueue.adapters.celery.tap import Tap
from stiqueue.worker import REASON_CHARACTERS

REASON = "rejected by a consumer of Celery or kombu"
SETTLE_SECONDS = 5.0
"""How long a call waits for what was settled before it."""


class Channel(virtual.Channel):
    """Declares and publishes as all virtual channels of kombu do; consumes by streams."""

    do_restore = False  # the end of the connection gives back what is unsettled
    supports_fanout = False

    def __init__(self, connection: Any, **options: Any) -> None:
        """Open the channel; nothing is sent to the server."""
        super().__init__(connection, **options)
        self._credit = Credit()
        self._taps: dict[str, Tap] = {}
        """By consumer tag."""
        self._unsettled: dict[str, tuple[Message, Credit | None]] = {}
        """Delivered messages by delivery tag, and where each is counted."""
        self._closing: list[Tap] = []
        self._lock = threading.Lock()
        """Protects `_unsettled`: pools of threads settle messages from any thread."""

    @property
    def client(self) -> SQClient:
        """The connection's client."""
        client: SQClient = self.connection.sq_client
        return client

    # Publishing. Exchanges and bindings are those that this process has declared.

    def _put(self, queue: str, message: dict[str, Any], **_: Any) -> None:
        name = self._name(queue)
        body, priority, delay, ttl, request_id = posting(message, name)
        self.client.enq(body, queue=name, priority=priority, delay=delay, ttl=ttl, request_id=request_id)

    def _lookup(self, exchange: str, routing_key: str, default: str | None = None) -> Any:
        found = super()._lookup(exchange, routing_key, default)
        declared = self.state.exchanges.get(exchange, {"type": "direct"})
        if not found and declared["type"] == "direct":  # of a topic nobody need want anything
            raise ChannelError(
                f"no queue is bound to exchange {exchange!r} by routing key {routing_key!r}: bindings are kept in each "
                "process, so declare the queue where you publish (in Celery: name it in task_queues or task_routes)"
            )
        return found

    def queue_declare(self, queue: str | None = None, passive: bool = False, **options: Any) -> Any:
        """Declare a queue, which exists from its first use; count its messages only if `passive`."""
        if passive:
            return super().queue_declare(queue, passive, **options)
        return queue_declare_ok_t(queue or f"amq.gen-{self._next_delivery_tag()}", 0, 0)

    def _size(self, queue: str) -> int:
        self._flush()
        return self.client.cnt(queue=self._name(queue))

    def _purge(self, queue: str) -> int:
        self._flush()
        return self.client.purge(queue=self._name(queue))

    def _name(self, queue: str) -> str:
        return f"{self.connection.prefix}{queue}"

    # Consuming.

    def basic_qos(self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False) -> None:
        """Have up to `prefetch_count` unsettled messages (0: any number), of all queues of the channel together."""
        super().basic_qos(prefetch_size, prefetch_count, apply_global)
        self._credit.set_limit(prefetch_count)
        for tap in list(self._taps.values()):
            tap.resize(prefetch_count)

    def basic_consume(
        self, queue: str, no_ack: bool, callback: Callable[[Any], object], consumer_tag: str, **_: Any
    ) -> None:
        """Begin to read `queue`; `drain_events` calls `callback` with each message."""
        tap = Tap(self.client, self._name(queue), self._credit, self.connection.deliver, self.connection.fail)
        tap.context = partial(self._deliver, no_ack=no_ack, callback=callback)
        self._consumers.add(consumer_tag)
        self._taps[consumer_tag] = tap
        tap.resize(self._credit.limit)

    def basic_cancel(self, consumer_tag: str) -> None:
        """Read nothing more for this consumer: messages that it has not been given go back to the queue."""
        tap = self._taps.pop(consumer_tag, None)
        if tap is None:
            return
        self._consumers.discard(consumer_tag)
        tap.stop()
        for message in self.connection.undelivered(tap):
            self._give_back(message)

    def _give_back(self, message: Message) -> None:
        self._credit.give()
        self._settle(message, partial(message.requeue, untouched=True))

    def _deliver(self, message: Message, no_ack: bool, callback: Callable[[Any], object]) -> None:
        made = self._made(message, None if no_ack else self._credit)
        if made is None or no_ack:
            self._credit.give()
        if made is None:
            return
        if no_ack:
            self.basic_ack(made.delivery_tag)
        callback(made)

    def _made(self, message: Message, credit: Credit | None) -> Any:
        """Return kombu's message, and remember it until it is settled.

        None: something else wrote it. It becomes a dead letter; otherwise it would end each worker that takes it.
        """
        try:
            made = self.Message(payload(message), channel=self)
        except Exception as error:  # whatever it does to a parser
            reason = f"not a message of kombu: {type(error).__name__}: {error}"[:REASON_CHARACTERS]
            logger.error("message %d of %s is %s", message.id, message.queue, reason)
            self._settle(message, partial(message.dead_letter, reason))
            return None
        with self._lock:
            self._unsettled[made.delivery_tag] = message, credit
        return made

    def basic_get(self, queue: str, no_ack: bool = False, **_: Any) -> Any:
        """Return a message that is ready now, or None."""
        self._flush()
        while (message := self.client.deq(0, queue=self._name(queue))) is not None:
            made = self._made(message, None)
            if made is None:
                continue
            if no_ack:
                self.basic_ack(made.delivery_tag)
            return made
        return None

    # Settling.

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        """Settle a message, or all that were delivered up to it."""
        for message in self._taken(delivery_tag, multiple):
            self._settle(message, message.ack)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give a message back to its place in the queue, or move it to the dead letters."""
        for message in self._taken(delivery_tag):
            self._settle(message, partial(message.requeue, 0.0) if requeue else partial(message.dead_letter, REASON))

    def basic_recover(self, requeue: bool = False) -> None:
        """Give back all messages that are unsettled."""
        if not requeue:
            raise NotImplementedError("basic_recover: only with requeue=True")
        for tag in list(self._unsettled):
            self.basic_reject(tag, requeue=True)

    def _taken(self, delivery_tag: str, multiple: bool = False) -> list[Message]:
        with self._lock:
            if delivery_tag not in self._unsettled:
                return []  # settled before, or of a connection that was lost
            tags = [delivery_tag]
            if multiple:
                tags = list(self._unsettled)
                del tags[tags.index(delivery_tag) + 1 :]
            taken = [self._unsettled.pop(tag) for tag in tags]
        for _, credit in taken:
            if credit is not None:
                credit.give()
        return [message for message, _ in taken]

    def _settle(self, message: Message, job: Callable[[], bool]) -> None:
        self.connection.settler.settle(f"message {message.id} of {message.queue}", job)

    def _flush(self) -> None:
        """Wait until what was settled is settled: a channel does one thing after another."""
        self.connection.settler.flush(SETTLE_SECONDS)

    def close(self) -> None:
        """Cancel all consumers and give back what is unsettled."""
        if self.closed:
            return
        taps = list(self._taps.values())
        for tag in list(self._taps):
            self.basic_cancel(tag)
        self.basic_recover(requeue=True)
        self._credit.close()
        self._closing = taps
        super().close()

    def join(self, deadline: float) -> None:
        """Wait until `deadline`, in monotonic seconds, for the threads of a closed channel."""
        for tap in self._closing:
            tap.join(deadline)
