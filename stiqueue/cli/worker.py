"""A loop over messages that a signal ends between two messages."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from stiqueue.cli.output import note
from stiqueue.cli.signals import caught, exit_code
from stiqueue.errors import Closed
from stiqueue.message import Message
from stiqueue.sqclient import SQClient

TICK_SECONDS = 0.1
"""The time between two checks for signals, and between two checks of a stopping loop before its client is closed."""


class Worker:
    """Handles the messages of a queue in a separate thread, while the main thread watches for signals.

    The first signal lets it finish the current message; prefetched messages return to their old places. The second
    calls `hurry`; the third ends the process.
    """

    def __init__(
        self,
        client: SQClient,
        prefetch: int,
        timeout: float | None,
        handle: Callable[[Message], bool],
        hurry: Callable[[], None] | None = None,
    ) -> None:
        """Call `handle` for each message; if it returns False, the message is acked afterwards."""
        self._client = client
        self._prefetch = prefetch
        self._timeout = timeout
        self._handle = handle
        self._hurry = hurry
        self._lock = threading.Lock()
        """Protects `_stopping` and `_busy`: no message is begun after a stop."""
        self._stopping = False
        self._busy = False
        self._error: BaseException | None = None

    def run(self) -> int | None:
        """Work until no message comes for `timeout` seconds, or until a signal; return the first signal, if any.

        Raises:
            Exception: raised by the client or `handle`; the message is given back.
        """
        thread = threading.Thread(target=self._work, name="stiqueue-worker", daemon=True)
        with caught() as numbers:
            thread.start()
            seen = 0
            while thread.is_alive():
                thread.join(TICK_SECONDS)
                if len(numbers) > seen:
                    seen += 1
                    self._stop(seen, numbers[0])
                elif seen and not self._busy:
                    self._client.close()
        if self._error is not None:
            raise self._error
        return numbers[0] if numbers else None

    def _stop(self, times: int, number: int) -> None:
        if times == 1:
            with self._lock:
                self._stopping = True
                busy = self._busy
            if busy:
                note("stopping after this message; repeat to stop at once")
        elif times == 2 and self._hurry is not None:
            self._hurry()
        else:
            os._exit(exit_code(number))

    def _work(self) -> None:
        messages = self._client.consume(self._prefetch, self._timeout)
        try:
            for message in messages:
                with self._lock:
                    if self._stopping:
                        self._busy = True  # until the server has answered the acks of earlier messages
                        break
                    self._busy = True
                settled = self._handle(message)
                with self._lock:
                    if not self._stopping:
                        self._busy = False
                        continue
                if not settled:
                    message.ack()
                break
            messages.close()
        except BaseException as error:
            if not (self._stopping and isinstance(error, Closed)):
                self._error = error
        finally:
            self._busy = False
