"""The connection to the cluster: requests with timeouts, many confirmations at once, and translated errors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable, Iterable
from itertools import count
from typing import Any

from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as Interest

from stiqueue.engines.jetstream.answers import NO_RESPONDERS, NobodyThere, is_status, read_answer, unavailable
from stiqueue.engines.jetstream.checks import shown
from stiqueue.engines.jetstream.client import Hear, QuickClient
from stiqueue.errors import StoreError

CONNECT_SECONDS = 2.0
"""Timeout for connecting to one server."""
START_SECONDS = 10.0
"""Timeout for the first connection."""
CALL_SECONDS = 5.0
"""Timeout for an answer."""
LOST_SECONDS = 1.0
"""Timeout for requests sent before the connection was lost: their answers may have been lost with it."""
API_SECONDS = 10.0
"""Timeout for API calls that create something."""
RESEND_SECONDS = 1.0
"""The time after which an unconfirmed acknowledgement is sent again."""
PAUSE_SECONDS = 0.05
"""The pause before it is sent again if certainly nobody received it."""
CLOSE_SECONDS = 2.0
DRAIN_SECONDS = 5.0
PENDING_BYTES = 64 << 20
"""Most bytes that may wait to be sent."""
LOST = (nats_errors.Error, asyncio.TimeoutError, OSError, RuntimeError)
"""What nats-py raises over a lost connection; uvloop's error for a closed one is a RuntimeError."""

Handler = Callable[[Msg], Awaitable[None]]


class Cluster:
    """One connection, which moves to another server by itself when its server is gone."""

    def __init__(self, servers: list[str], name: str, logger: logging.Logger) -> None:
        """Configure the connection without opening it."""
        self._servers = servers
        self._name = name
        self._logger = logger
        self._client = QuickClient(logger, needs_tls=any(server.startswith("tls://") for server in servers))
        self._last_error: Exception | None = None
        """What the client told of last."""
        self._numbers = count(1)
        self._rounds: dict[str, _Round] = {}
        """Unconfirmed rounds by a token of their reply subjects; the next token is the index of the message."""
        self._inbox = ""
        self._closing = False
        self.on_reconnect: Callable[[], None] = lambda: None
        """Called after a reconnect."""

    @property
    def version(self) -> str:
        """The version of the connected server."""
        return str(self._client.connected_server_version).strip("<>").rpartition(" v")[2]

    @property
    def is_connected(self) -> bool:
        """Whether the connection is up."""
        return self._client.is_connected

    @property
    def max_payload(self) -> int:
        """The largest message, including its headers, that the server accepts."""
        return self._client.max_payload

    async def connect(self) -> None:
        """Connect to one of the servers.

        Raises:
            StoreError: no server can be reached, or none accepts the login.
        """
        try:
            await asyncio.wait_for(
                self._client.connect(
                    servers=self._servers,
                    name=self._name,
                    error_cb=self._failed,
                    disconnected_cb=self._disconnected,
                    reconnected_cb=self._reconnected,
                    connect_timeout=int(CONNECT_SECONDS),
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.2,  # type: ignore[arg-type]  # the annotation says int; any number works
                    ping_interval=2,  # leave a server that is cut off after three of these
                    max_outstanding_pings=2,
                    pending_size=PENDING_BYTES,
                    drain_timeout=int(CLOSE_SECONDS),
                    skip_subject_validation=True,  # all subjects are built from checked names
                ),
                START_SECONDS,
            )
        except (OSError, asyncio.TimeoutError, nats_errors.Error) as error:
            cause = self._last_error or error
            why = str(cause) or type(cause).__name__
            raise StoreError(f"cannot connect to any NATS server of {shown(self._servers)}: {why}") from error
        self._inbox = self._client.new_inbox()
        await self.subscribe_quickly(f"{self._inbox}.*.*", self._confirmed)

    async def _failed(self, error: Exception) -> None:
        self._last_error = error
        self._logger.debug("NATS: %r", error)

    async def _disconnected(self) -> None:
        if not self._closing:
            self._logger.warning("lost the connection to NATS; looking for another server")
        asyncio.get_running_loop().call_later(LOST_SECONDS, _give_up, self._client.open_requests())

    async def _reconnected(self) -> None:
        self._logger.warning("connected to NATS again")
        self.on_reconnect()

    async def close(self) -> None:
        """Send pending data and close the connection. Safe to call twice."""
        self._closing = True
        if self._client.is_connected:
            with contextlib.suppress(*LOST):
                await self.reach(CLOSE_SECONDS)
        if not self._client.is_closed:
            with contextlib.suppress(*LOST):
                await asyncio.wait_for(self._client.close(), CLOSE_SECONDS)

    # -- talking ------------------------------------------------------------------------------------------------------

    def new_inbox(self) -> str:
        """Return a unique subject for replies."""
        return self._client.new_inbox()

    async def subscribe(self, subject: str, handler: Handler) -> Interest:
        """Call `handler` with each message on `subject`, without a limit: requests bound the number of messages."""
        return await self._client.subscribe(subject, cb=handler, pending_msgs_limit=0, pending_bytes_limit=0)

    async def subscribe_quickly(self, subject: str, hear: Hear) -> Interest:
        """Do the same for high traffic; see `QuickClient.subscribe_quickly`."""
        return await self._client.subscribe_quickly(subject, hear)

    async def lose_interest(self, interest: Interest) -> None:
        """Unsubscribe after handling the messages that are on their way."""
        with contextlib.suppress(nats_errors.Error):  # the connection is gone, and its subscriptions with it
            await self._client.stop(interest)
            await self.reach(DRAIN_SECONDS)
            await interest.unsubscribe()

    async def reach(self, timeout: float = CALL_SECONDS) -> bool:
        """Wait until both sides have read everything sent so far; return False after `timeout`.

        nats-py's `flush` does not serve: its ping overtakes pending data, and a late answer to it ends the read loop.
        """
        myself = {0: ("", b"")}
        await self._confirm_once(myself, timeout)
        return not myself

    async def send(
        self, subject: str, body: bytes = b"", reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Send a message without waiting for an answer.

        Raises:
            Unavailable: the connection is down and the send buffer is full.
        """
        try:
            await self._client.publish(subject, body, reply, headers)
        except nats_errors.Error as error:
            raise unavailable(error) from error

    async def ask(
        self, subject: str, body: bytes = b"", headers: dict[str, str] | None = None, timeout: float = CALL_SECONDS
    ) -> Msg:
        """Send a request and return its answer.

        Raises:
            NobodyThere: nobody listens to `subject`; the request certainly had no effect.
            Unavailable: no answer in time; the request may have had an effect.
        """
        if not self._client.is_connected:
            raise NobodyThere("no connection to NATS")
        try:
            return await self._client.request(subject, body, timeout, headers=headers)
        except nats_errors.NoRespondersError as error:
            raise NobodyThere("the NATS cluster has no leader for this; it may be electing one") from error
        except (nats_errors.Error, asyncio.TimeoutError) as error:
            raise unavailable(error) from error

    async def call(self, path: str, /, **request: Any) -> dict[str, Any]:
        """Call JetStream's API.

        Raises:
            Refused: the answer is an error.
            Unavailable: no answer came in time.
        """
        answer = await self.ask(f"$JS.API.{path}", json.dumps(request).encode() if request else b"", None, API_SECONDS)
        return read_answer(answer)

    async def confirm(self, messages: Iterable[tuple[str, bytes]], timeout: float = CALL_SECONDS) -> list[int]:
        """Send messages and wait for the confirmation of each; send unconfirmed ones again until `timeout`.

        Return the indices of the messages that were never confirmed.
        """
        waiting = dict(enumerate(messages))
        loop = asyncio.get_running_loop()
        give_up = loop.time() + timeout
        while waiting and loop.time() < give_up:
            await self._confirm_once(waiting, min(RESEND_SECONDS, give_up - loop.time()))
        return list(waiting)

    async def confirm_once(self, messages: Iterable[tuple[str, bytes]], timeout: float = CALL_SECONDS) -> list[int]:
        """Like `confirm`, for messages that do harm if they arrive twice or late.

        Sends them only once the connected server has proved that it reads, because a hung server would forward them
        when it resumes. Sends a message again only if certainly nobody received it.
        """
        waiting = dict(enumerate(messages))
        unsure: set[int] = set()
        loop = asyncio.get_running_loop()
        give_up = loop.time() + timeout
        while waiting and loop.time() < give_up:
            if await self.reach(min(RESEND_SECONDS, give_up - loop.time())):
                sent_to_nobody = await self._confirm_once(waiting, give_up - loop.time())
                unsure |= waiting.keys() - sent_to_nobody
                waiting = {index: waiting[index] for index in sent_to_nobody}
        return sorted(unsure | waiting.keys())

    async def _confirm_once(self, waiting: dict[int, tuple[str, bytes]], timeout: float) -> set[int]:
        """Send all of `waiting` and drop the confirmed ones. Return those that certainly nobody received.

        A message without a subject goes through the server back to this client.
        """
        expected = _Round(waiting)
        token = f"{next(self._numbers):x}"
        inbox = f"{self._inbox}.{token}."
        self._rounds[token] = expected
        try:
            await self._client.publish_many(
                [(subject or f"{inbox}{index}", body, f"{inbox}{index}") for index, (subject, body) in waiting.items()]
            )
            await asyncio.wait_for(expected.done, timeout)
        except asyncio.TimeoutError:
            pass
        except nats_errors.Error:
            expected.refused.update(waiting)
        finally:
            del self._rounds[token]
        if waiting:
            await asyncio.sleep(min(PAUSE_SECONDS, timeout))
        return expected.refused

    def _confirmed(self, answer: Msg) -> None:
        _, token, index = answer.subject.rsplit(".", 2)
        expected = self._rounds.get(token)
        if expected is not None:
            expected.answered(int(index), not is_status(answer, NO_RESPONDERS))


def _give_up(requests: Iterable[asyncio.Future[Msg]]) -> None:
    """Fail the requests that have no answer yet."""
    for request in requests:
        if not request.done():
            request.set_exception(nats_errors.TimeoutError())


class _Round:
    """Messages sent together, waiting for their confirmations."""

    def __init__(self, waiting: dict[int, tuple[str, bytes]]) -> None:
        self._waiting = waiting
        self.refused: set[int] = set()
        """The messages that certainly nobody received."""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answered(self, index: int, confirmed: bool) -> None:
        if confirmed:
            self._waiting.pop(index, None)
            self.refused.discard(index)
        else:
            self.refused.add(index)
        if len(self.refused) >= len(self._waiting) and not self.done.done():
            self.done.set_result(None)
