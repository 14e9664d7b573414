"""A loop over messages that signals end between two of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator
from typing import cast

from stiqueue.cli.output import note
from stiqueue.cli.signals import caught, exit_code
from stiqueue.errors import Closed
from stiqueue.message import Message
from stiqueue.sqclient import SQClient

TICK_SECONDS = 0.1
"""How often signals are looked for. Also how long a loop that was told to stop has to wait before its client is closed
over its head: whatever it was sending by then has been sent."""


class Worker:
    """Handles the messages of a queue in a thread of its own, while the main thread looks after signals.

    The first signal lets it finish the message that it handles; what was delivered beyond that goes back to
    its old place. The second calls `hurry`; the last ends the process.
    """

    def __init__(
        self,
        client: SQClient,
        prefetch: int,
        timeout: float | None,
        handle: Callable[[Message], bool],
        hurry: Callable[[], None] | None = None,
    ) -> None:
        """Handle each message by calling `handle`, which returns whether it has settled it; otherwise ack it then."""
        self._client = client
        self._prefetch = prefetch
        self._timeout = timeout
        self._handle = handle
        self._hurry = hurry
        self._lock = threading.Lock()
        """Protects the two below: a message is begun only when it is known that nobody wants to stop."""
        self._stopping = False
        self._busy = False
        self._error: BaseException | None = None

    def run(self) -> int | None:
        """Work until there is no message for `timeout` seconds or a signal comes; return the first signal, if any.

        Raises:
            Exception: what the client or `handle` raised; the message is given back.
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
                note("stopping after this message; once more to stop at once")
        elif times == 2 and self._hurry is not None:
            self._hurry()
        else:
            os._exit(exit_code(number))

    def _work(self) -> None:
        messages = cast(Generator[Message, None, None], self._client.consume(self._prefetch, self._timeout))
        try:
            for message in messages:
                with self._lock:
                    if self._stopping:
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
