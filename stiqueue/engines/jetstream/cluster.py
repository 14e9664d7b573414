"""The connection to the cluster: requests with bounded waits, many confirmations at once, and errors as ours."""

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
from stiqueue.engines.jetstream.client import Hear, QuickClient
from stiqueue.errors import StoreError

CONNECT_SECONDS = 2.0
"""How long one server may take to accept a connection."""
START_SECONDS = 10.0
"""How long the first connection may take."""
CALL_SECONDS = 5.0
"""How long an answer may take."""
LOST_SECONDS = 1.0
"""The same, for what was asked before the connection was lost, and may have been lost with it."""
API_SECONDS = 10.0
"""The same, where something is to be made."""
RESEND_SECONDS = 1.0
"""After how long without a confirmation an acknowledgement is sent again."""
PAUSE_SECONDS = 0.05
"""How long to wait before it is sent again, if it is known earlier that nobody got it."""
CLOSE_SECONDS = 2.0
DRAIN_SECONDS = 5.0
PENDING_BYTES = 64 << 20
"""How much may wait to be sent."""

Handler = Callable[[Msg], Awaitable[None]]


class Cluster:
    """One connection, which finds another server by itself when its own is gone."""

    def __init__(self, servers: list[str], name: str, logger: logging.Logger) -> None:
        """Describe the connection; nothing is opened."""
        self._servers = servers
        self._name = name
        self._logger = logger
        self._client = QuickClient(logger)
        self._numbers = count(1)
        self._rounds: dict[str, _Round] = {}
        """Those that wait for confirmations, by a token of their subjects; the next is the index of the message."""
        self._inbox = ""
        self._closing = False
        self.on_reconnect: Callable[[], None] = lambda: None
        """Called when the connection is there again."""

    @property
    def version(self) -> str:
        """The version of the server that is connected."""
        return str(self._client.connected_server_version).strip("<>").rpartition(" v")[2]

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now."""
        return self._client.is_connected

    @property
    def max_payload(self) -> int:
        """The largest message, with its headers, that the server takes."""
        return self._client.max_payload

    async def connect(self) -> None:
        """Connect to one of the servers.

        Raises:
            StoreError: none can be reached, or none accepts us.
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
                    ping_interval=2,  # a server that is cut off is left after three of these
                    max_outstanding_pings=2,
                    pending_size=PENDING_BYTES,
                    drain_timeout=int(CLOSE_SECONDS),
                    skip_subject_validation=True,  # all subjects are made here, of checked names
                ),
                START_SECONDS,
            )
        except (OSError, asyncio.TimeoutError, nats_errors.Error) as error:
            raise StoreError(
                f"no NATS server of {', '.join(self._servers)} can be used: {error or type(error).__name__}"
            ) from error
        self._inbox = self._client.new_inbox()
        await self.subscribe_quickly(f"{self._inbox}.*.*", self._confirmed)

    async def _failed(self, error: Exception) -> None:
        self._logger.debug("NATS: %r", error)

    async def _disconnected(self) -> None:
        if not self._closing:
            self._logger.warning("the connection to NATS is lost; looking for another server")
        asyncio.get_running_loop().call_later(LOST_SECONDS, _give_up, self._client.open_requests())

    async def _reconnected(self) -> None:
        self._logger.warning("connected to NATS again")
        self.on_reconnect()

    async def close(self) -> None:
        """Send what waits to be sent, and end. Safe to call twice."""
        self._closing = True
        if self._client.is_connected:
            with contextlib.suppress(nats_errors.Error, asyncio.TimeoutError, OSError):
                await self.reach(CLOSE_SECONDS)
        if not self._client.is_closed:
            with contextlib.suppress(nats_errors.Error, asyncio.TimeoutError, OSError):
                await asyncio.wait_for(self._client.close(), CLOSE_SECONDS)

    # -- talking ------------------------------------------------------------------------------------------------------

    def new_inbox(self) -> str:
        """Return a subject that nobody else has."""
        return self._client.new_inbox()

    async def subscribe(self, subject: str, handler: Handler) -> Interest:
        """Call `handler` with each message on `subject`. What comes is bounded by what was asked for, not here."""
        return await self._client.subscribe(subject, cb=handler, pending_msgs_limit=0, pending_bytes_limit=0)

    async def subscribe_quickly(self, subject: str, hear: Hear) -> Interest:
        """Do the same for what comes in great numbers; see `QuickClient.subscribe_quickly`."""
        return await self._client.subscribe_quickly(subject, hear)

    async def lose_interest(self, interest: Interest) -> None:
        """Get no more messages, after those that are on their way."""
        with contextlib.suppress(nats_errors.Error):  # the connection is gone, and all interest with it
            await self._client.stop(interest)
            await self.reach(DRAIN_SECONDS)
            await interest.unsubscribe()

    async def reach(self, timeout: float = CALL_SECONDS) -> bool:
        """Wait until the server has read all that was sent, and we all that it sent before; return whether it did.

        nats-py has `flush` for this, whose question overtakes what waits to be sent, and whose answer ends the reading
        when nobody waits for it any more.
        """
        myself = {0: ("", b"")}
        await self._confirm_once(myself, timeout)
        return not myself

    async def send(
        self, subject: str, body: bytes = b"", reply: str = "", headers: dict[str, str] | None = None
    ) -> None:
        """Send a message and wait for nothing.

        Raises:
            Unavailable: there is no connection, and no room to keep the message until there is.
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
            NobodyThere: nobody listens to `subject`; surely nothing happened.
            Unavailable: no answer in time; it may have happened.
        """
        if not self._client.is_connected:
            raise NobodyThere("there is no connection to NATS")
        try:
            return await self._client.request(subject, body, timeout, headers=headers)
        except nats_errors.NoRespondersError as error:
            raise NobodyThere("no server of the cluster is in charge; it may be electing one") from error
        except (nats_errors.Error, asyncio.TimeoutError) as error:
            raise unavailable(error) from error

    async def call(self, path: str, /, **request: Any) -> dict[str, Any]:
        """Call JetStream's API.

        Raises:
            Refused: it answered with an error.
            Unavailable: it did not answer.
        """
        answer = await self.ask(f"$JS.API.{path}", json.dumps(request).encode() if request else b"", None, API_SECONDS)
        return read_answer(answer)

    async def confirm(self, messages: Iterable[tuple[str, bytes]], timeout: float = CALL_SECONDS) -> list[int]:
        """Send messages, each to be confirmed by its receiver; those that are not are sent again until `timeout`.

        Return the indices of those that were never confirmed.
        """
        waiting = dict(enumerate(messages))
        loop = asyncio.get_running_loop()
        give_up = loop.time() + timeout
        while waiting and loop.time() < give_up:
            await self._confirm_once(waiting, min(RESEND_SECONDS, give_up - loop.time()))
        return list(waiting)

    async def confirm_once(self, messages: Iterable[tuple[str, bytes]], timeout: float = CALL_SECONDS) -> list[int]:
        """Do as `confirm` for messages that do harm when they come twice, or late.

        They are sent when the server that is connected is seen to read, for one that hangs would pass them on when it
        goes on; and they are sent again only if surely nobody got them.
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
        """Send all of `waiting` and drop those that are confirmed. Return those that surely nobody got.

        What has no subject is sent to ourselves, by way of the server.
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
    """Let requests fail that are not answered yet."""
    for request in requests:
        if not request.done():
            request.set_exception(nats_errors.TimeoutError())


class _Round:
    """Messages that were sent and wait for their confirmations."""

    def __init__(self, waiting: dict[int, tuple[str, bytes]]) -> None:
        self._waiting = waiting
        self.refused: set[int] = set()
        """Those that surely nobody got."""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def answered(self, index: int, confirmed: bool) -> None:
        if confirmed:
            self._waiting.pop(index, None)
            self.refused.discard(index)
        else:
            self.refused.add(index)
        if len(self.refused) >= len(self._waiting) and not self.done.done():
            self.done.set_result(None)
