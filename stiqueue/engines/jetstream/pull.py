"""The pull request of one consumer: it asks the cluster for messages, one request at a time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, Protocol

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as Interest

from stiqueue.engines.jetstream.answers import is_status
from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.engines.jetstream.names import CONSUMER
from stiqueue.engines.jetstream.stream_consumers import NANOSECONDS
from stiqueue.engines.jetstream.streams import Streams
from stiqueue.errors import StiQueueError, Unavailable

PULL_SECONDS = 60.0
"""The lifetime of a request."""
HEARTBEAT_SECONDS = 5.0
"""The interval of the cluster's heartbeats for a request."""
SILENCE_SECONDS = 12.0
"""A request silent for this long is repeated."""
FLIGHT_SECONDS = 2.0
"""How long messages may still be on their way after the cluster has ended the request."""
RETRY_SECONDS = 0.25

Spawn = Callable[[Coroutine[Any, Any, None]], None]


class End(Enum):
    """The reason why a request ended."""

    NOTHING_THERE = 1
    TIME_OVER = 2
    TOO_LARGE = 3
    """The next message is larger than the request allows."""
    LOST = 4
    """No server serves it any more."""
    DONE = 5
    """All requested messages have come."""


class Owner(Protocol):
    """The part of a consumer that its pull calls."""

    def arrived(self, message: Msg) -> None:
        """Handle a requested message."""
        ...

    def too_late(self, message: Msg) -> None:
        """Handle a message that came after the request was given up."""
        ...

    def ended(self, why: End) -> None:
        """Handle the end of a request that did not bring all messages: ask again, or end."""
        ...

    def failed(self, error: StiQueueError) -> None:
        """Handle an error that a retry cannot fix."""
        ...


class Pull:
    """Requests messages, one request at a time. Each message that comes is leased to this gateway."""

    def __init__(self, cluster: Cluster, streams: Streams, spawn: Spawn, queue: str, owner: Owner) -> None:
        """Pull from `queue` for `owner`; `ask` sends the first request."""
        self._cluster = cluster
        self._streams = streams
        self._spawn = spawn
        self._queue = queue
        self._owner = owner
        self._interest: Interest | None = None
        self._interests = 0
        """The number of subscriptions so far: messages of an earlier one come too late."""
        self.is_asking = self._stopped = False
        self._heard = 0.0
        self.expected = 0
        """The number of messages that the request may still bring."""
        self._over: Callable[[], None] | None = None
        """The action for when those have come, because the request has ended. In a cluster of several servers the end
        comes first, and the messages follow once the other servers know of their delivery."""

    @property
    def stands(self) -> bool:
        """Whether a request is open or being sent."""
        return self.is_asking or self.expected > 0

    def ask(self, request: Callable[[], dict[str, Any] | None]) -> None:
        """Send the request that `request` returns once the stream is ready; None: send nothing."""
        if not self.stands and not self._stopped:
            self.is_asking = True
            self._spawn(self._ask(request))

    async def _ask(self, request: Callable[[], dict[str, Any] | None]) -> None:
        try:
            stream = await self._streams.ensure(self._queue)
            if self._interest is None:
                await self._take_interest()
            asked = None if self._stopped else request()
            if asked is None or self._interest is None:
                return
            if not asked.get("no_wait") and "expires" not in asked:
                asked["expires"] = int(PULL_SECONDS * NANOSECONDS)
                asked["idle_heartbeat"] = int(HEARTBEAT_SECONDS * NANOSECONDS)
            self.expected, self._over = asked["batch"], None
            self._heard = time.monotonic()
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream.name}.{CONSUMER}"
            await self._cluster.send(subject, json.dumps(asked).encode(), self._interest.subject)
        except Unavailable:
            self.expected = 0
            self._again_soon()
        except StiQueueError as error:
            self._owner.failed(error)
        finally:
            self.is_asking = False
            if self._stopped:
                await self._lose_interest()

    async def _take_interest(self) -> None:
        self._interests += 1
        number = self._interests

        def heard(message: Msg) -> None:
            self._hear(message, number)

        self._interest = await self._cluster.subscribe_quickly(self._cluster.new_inbox(), heard)

    def _again_soon(self) -> None:
        asyncio.get_running_loop().call_later(RETRY_SECONDS, self._owner.ended, End.LOST)

    def renew(self) -> None:
        """Repeat the request: it may be lost."""
        if self.expected:
            self.expected = 0
            self._spawn(self._lose_interest())
            self._owner.ended(End.LOST)

    def check_silence(self) -> None:
        """Repeat the request if the cluster has been silent for too long."""
        patience = FLIGHT_SECONDS if self._over else SILENCE_SECONDS
        if self.expected and time.monotonic() - self._heard > patience:
            self.renew()

    async def finish(self) -> None:
        """Request nothing more; return once messages on their way have come."""
        self._stopped = True
        interest = self._interest
        if interest is not None and self.expected:
            await self._cluster.lose_interest(interest)
            if self._interest is interest:
                self._interest = None
        self.expected = 0
        self._owner.ended(End.LOST)

    async def stop(self) -> None:
        """Request nothing more; return once messages on their way have come, as too late."""
        self._stopped = True
        self.expected = 0
        await self._lose_interest()

    async def _lose_interest(self) -> None:
        interest, self._interest = self._interest, None
        if interest is not None:
            self._interests += 1
            await self._cluster.lose_interest(interest)

    def _hear(self, message: Msg, number: int) -> None:
        self._heard = time.monotonic()
        is_current = number == self._interests
        if message.reply.startswith("$JS.ACK."):
            if is_current and self.expected:
                self.expected -= 1
                self._owner.arrived(message)
                if not self.expected and self._over is not None:
                    self._over()
            else:
                self._owner.too_late(message)
        elif is_current and not is_status(message, "100"):
            self._end(message)

    def _end(self, message: Msg) -> None:
        """Handle the cluster's status that ends the request."""
        headers = message.headers or {}
        if "Nats-Pending-Messages" in headers:  # these will not come; the others are on their way
            self.expected -= min(self.expected, int(headers["Nats-Pending-Messages"]))
        else:
            self.expected = 0
        self._over = self._what_now(message)
        if not self.expected:
            self._over()

    def _what_now(self, message: Msg) -> Callable[[], None]:
        """Return the action for a request that ended with the status `message`."""
        text = (message.headers or {}).get("Description", "")
        if is_status(message, "404"):
            return lambda: self._owner.ended(End.NOTHING_THERE)
        if is_status(message, "408"):
            return lambda: self._owner.ended(End.TIME_OVER)
        if "MaxBytes" in text:
            return lambda: self._owner.ended(End.TOO_LARGE)
        if text == "Batch Completed":
            return lambda: self._owner.ended(End.DONE)
        # No leader, a new leader, or a consumer that is gone.
        self._streams.forget(self._queue)
        return self._again_soon
