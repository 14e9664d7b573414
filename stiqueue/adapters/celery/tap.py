"""One consumer of a channel: threads that read a queue, one for each subscription."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from stiqueue import Closed, Message, SQClient, StiQueueError
from stiqueue.adapters.celery.credit import Credit

if TYPE_CHECKING:
    from stiqueue.client.base import Messages

HOLD_SECONDS = 0.1
"""How long a message may wait here for room in its channel before it goes back to the queue, for others to take."""
UNLIMITED = 1_000
"""The prefetch of a subscription whose channel has no limit."""


class Tap:
    """Reads a queue into `deliver` while its channel has room, and tells `fail` why it cannot go on.

    It has one subscription as large as the channel's prefetch count. If the count grows, another one brings what is
    missing. A subscription that brings more than the channel has room for, because the count shrank or another queue
    took the room, ends once its messages are settled, and another follows when there is room.
    """

    def __init__(
        self,
        client: SQClient,
        queue: str,
        credit: Credit,
        deliver: Callable[[Tap, Message], None],
        fail: Callable[[Exception], None],
    ) -> None:
        """Describe the consumer; nothing is read before `resize`."""
        self.queue = queue
        self.is_stopped = False
        """Whether what is delivered from now on is to go back."""
        self.context: Any = None
        """Whatever belongs to the consumer."""
        self._client = client
        self._credit = credit
        self._deliver = deliver
        self._fail = fail
        self._lock = threading.Lock()
        """Protects all that follows, and that nothing is opened once the tap is stopped."""
        self._prefetch = 0
        self._sizes: dict[threading.Thread, int] = {}
        """The prefetch of subscriptions that bring messages, by their threads."""
        self._open: dict[threading.Thread, Messages] = {}
        """Subscriptions that have not ended, by their threads."""

    def resize(self, prefetch: int) -> None:
        """Have up to `prefetch` messages sent ahead; 0: as many as is sensible."""
        with self._lock:
            self._prefetch = prefetch or UNLIMITED
            self._fill_up()

    def _fill_up(self) -> None:
        """Open, with the lock held, a subscription for what is missing."""
        missing = self._prefetch - sum(self._sizes.values())
        if missing > 0 and not self.is_stopped:
            thread = threading.Thread(target=self._read, args=[missing], name=f"stiqueue-{self.queue}", daemon=True)
            self._sizes[thread] = missing
            thread.start()

    def _read(self, prefetch: int) -> None:
        thread = threading.current_thread()
        try:
            self._credit.wait()
            with self._lock:
                if self.is_stopped:
                    return
                messages = self._open[thread] = self._client.consume(prefetch, queue=self.queue, resume=False)
            for message in messages:
                if not self.is_stopped and self._credit.take(HOLD_SECONDS):
                    self._deliver(self, message)
                    continue
                with self._lock:
                    self._sizes.pop(thread, None)
                    self._fill_up()
                message.requeue(untouched=True)
                messages.finish()
        except Closed:
            pass
        except StiQueueError as error:
            if not self.is_stopped:
                self._fail(error)
        finally:
            with self._lock:
                self._sizes.pop(thread, None)
                self._open.pop(thread, None)

    def stop(self) -> None:
        """Read nothing more: messages that were sent ahead go back; those that were delivered can still be settled."""
        with self._lock:
            self.is_stopped = True
            subscriptions = list(self._open.values())
        for messages in subscriptions:
            with suppress(StiQueueError):  # its end gives them back
                messages.finish()

    def join(self, deadline: float) -> None:
        """Wait until `deadline`, in monotonic seconds, for its threads to end: their client or channel is closed."""
        with self._lock:
            threads = [*self._open, *self._sizes]
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
