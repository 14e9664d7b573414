"""One connection to the server, with one token: what the pages ask, each question bounded in time and size."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc
import grpc.aio

from stiqueue.aio import AsyncSQClient
from stiqueue.client.calls.diagnosis import hint
from stiqueue.client.calls.endpoint import Endpoint
from stiqueue.errors import AccessDenied, NotSupported, StiQueueError, Unavailable
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1.queue_pb2_grpc import QueueServiceStub
from stiqueue.web.options import WebOptions
from stiqueue.wire.status import from_wire, handshake_failed

PEEK_BYTES = 8 << 20
"""After how many bytes of bodies and headers a look at messages ends."""
NO_SUCH_LEASE = "console-asks-for-its-rights"
"""A lease that no server has given out."""

_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


@dataclass(frozen=True)
class Rights:
    """What a token may do, as far as the console must know to offer it. The server decides each time."""

    enq: bool = True
    deq: bool = True
    admin: bool = True

    @property
    def read_only(self) -> bool:
        """Whether no action is possible."""
        return not (self.enq or self.deq or self.admin)


class Spot(NamedTuple):
    """A place among the messages of a queue, by the message that is there or was."""

    id: int
    priority: int | None = None
    """Its priority, for a place in the order of delivery; None: the id alone counts."""


@dataclass
class Looked:
    """What a look at messages found."""

    messages: list[pb.PeekedMessage]
    is_cut: bool
    """Whether it ended because the messages were too large: it left out some of those that were asked for."""


class Link:
    """A connection to the server. For the tasks of one event loop. Connects on first use and again when it is lost."""

    def __init__(self, options: WebOptions, token: str | None) -> None:
        """Reach the server of `options` with `token`.

        Raises:
            InvalidRequest: the token cannot be sent, because the connection to another machine is not encrypted.
        """
        self._endpoint = Endpoint(options.host, options.port, options.tls, token)
        self._options = options
        self._token = token
        self._channel: Any = None
        self._client: AsyncSQClient | None = None

    async def counts(self, queues: Sequence[str] = ()) -> list[pb.QueueCounts]:
        """Return the counts of `queues`; of none: of every queue in use that the token may look at."""
        request = pb.CntRequest(queues=queues)
        response = await self._answered(
            self._stub().Cnt(request, timeout=self._options.timeout, metadata=self._metadata)
        )
        return list(response.queues)

    async def peek(self, queue: str, state: int, after: Spot, limit: int) -> Looked:
        """Look at up to `limit` messages behind the spot `after`, in the server's order."""
        found = Looked([], False)
        size = 0
        async for message in self.peek_all(queue, state, after, limit):
            if size > PEEK_BYTES:
                found.is_cut = True
                break
            found.messages.append(message)
            size += message.ByteSize()
        return found

    async def peek_all(self, queue: str, state: int, after: Spot, limit: int) -> AsyncIterator[pb.PeekedMessage]:
        """Iterate over up to `limit` messages; the look ends where the loop does."""
        request = pb.PeekRequest(
            queue=queue,
            limit=limit,
            after_id=after.id,
            after_priority=after.priority,
            state=state,  # type: ignore[arg-type]
        )
        call = self._stub().Peek(request, timeout=self._options.timeout, metadata=self._metadata)
        try:
            while (response := await self._answered(call.read())) is not grpc.aio.EOF:
                for message in response.messages:
                    yield message
        finally:
            call.cancel()

    async def rights(self) -> Rights:
        """Ask the server what the token is good for, by requests that change nothing.

        Raises:
            Unauthenticated: it is not valid.
            AccessDenied: it may not even look.
            Unavailable: the server does not answer.
        """
        await self.counts()
        admin = await self._may_govern()
        if self._token is None:
            return Rights(admin=admin)  # the server asks nobody
        ack = pb.AckRequest(lease_ids=[NO_SUCH_LEASE])
        try:
            await self._answered(self._stub().Ack(ack, timeout=self._options.timeout, metadata=self._metadata))
            deq = True
        except AccessDenied:
            deq = False
        # Refused in any case: for want of a right, or because there is no such lease.
        enq = pb.EnqRequest(bodies=[b""], ack_lease_ids=[NO_SUCH_LEASE])
        try:
            await self._answered(self._stub().Enq(enq, timeout=self._options.timeout, metadata=self._metadata))
        except AccessDenied as error:
            # The server looks for the right to enqueue first. No reason tells the two apart; if the words change, the
            # console offers what the server then refuses.
            return Rights(not str(error).endswith("no right to enq"), deq, admin)
        except StiQueueError:
            pass
        return Rights(True, deq, admin)

    async def _may_govern(self) -> bool:
        """Return whether there are settings of queues that the token may change."""
        try:
            await self.client.all_settings()
        except (AccessDenied, NotSupported):
            return False
        return True

    @property
    def client(self) -> AsyncSQClient:
        """The client that acts, with the rights of the token."""
        if self._client is None:
            options = self._options
            self._client = AsyncSQClient(
                options.host,
                options.port,
                logging.getLogger("stiqueue.web"),
                auto_ack=False,
                timeout=self._options.timeout,
                consumer="console",
                tls=options.tls,
                token=self._token,
            )
        return self._client

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.close()
        if self._channel is not None:
            await self._channel.close()
        self._channel = self._client = None

    @property
    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return self._endpoint.metadata

    def _stub(self) -> Any:
        if self._channel is None:
            self._channel = self._endpoint.channel(grpc.aio)
        return QueueServiceStub(self._channel)

    async def _answered(self, call: Any) -> Any:
        """Await an answer; translate gRPC's failures."""
        try:
            return await call
        except grpc.RpcError as error:
            failed: Any = error
            if failed.code() in _AWAY and not handshake_failed(failed):
                details = failed.details() or ""
                away = Unavailable(f"no answer from {self._endpoint}: {details}{hint(details)}")
                raise self._endpoint.mismatch(details) or away from error
            raise from_wire(failed, self._endpoint.detour) from error
