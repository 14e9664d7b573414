"""Streams of deliveries and looks, and the translation of their failures."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

import grpc

from stiqueue.client.calls.diagnosis import hint
from stiqueue.client.calls.endpoint import Endpoint
from stiqueue.client.calls.kinds import ChannelClosed, Responses
from stiqueue.errors import Unavailable
from stiqueue.limits import MAX_ACK_TIMEOUT
from stiqueue.message import Delivered, Outcome, PeekedMessage, Settlement, State
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.wire.metadata import was_connected
from stiqueue.wire.status import from_wire, handshake_failed

LOST = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
"""Failures that a retry may mend. An unasked CANCELLED means a server under a burst of calls."""
NEVER_MADE = "failed to connect"
"""How gRPC begins to tell of a connection that never came about."""

Settle = Callable[[Settlement, float], Coroutine[Any, Any, list[str]]]


class GrpcStream:
    """A `Deq` call; see `Stream`."""

    def __init__(self, responses: Responses, endpoint: Endpoint, settle: Settle) -> None:
        self._responses = responses
        self._endpoint = endpoint
        self._settle = settle
        self.cancel = responses.cancel
        self.leased_ids: Sequence[int] = ()
        self._lease_seconds = MAX_ACK_TIMEOUT
        """How long the server leases messages of this stream."""
        self._offset = math.inf
        """Our clock minus the server's, plus the shortest transit time of a response so far."""
        self._deadline = math.inf
        """When the leases of the last response run out, by our clock."""

    async def next(self) -> Sequence[Delivered] | None:
        response: pb.DeqResponse | None = await heard(self._responses.read(), self._endpoint)
        if response is not None and response.leased_ids:
            self.leased_ids = list(response.leased_ids)
            if not response.messages:
                return await self.next()
        if response is None:
            return None
        if response.sent_ms and response.lease_ms:
            sent = response.sent_ms / 1000
            self._lease_seconds = response.lease_ms / 1000
            # A response may have waited here for long, which the fastest one so far reveals.
            self._offset = min(self._offset, time.monotonic() - sent)
            self._deadline = sent + self._offset + response.lease_ms / 1000
        return response.messages

    @property
    def is_over(self) -> bool:
        return self._responses.is_over

    def holding(self) -> Callable[[str], bool]:
        responses, deadline = self._responses, self._deadline
        if deadline == math.inf:
            return lambda lease_id: not responses.is_over
        return lambda lease_id: not responses.is_over and time.monotonic() < deadline

    async def finish(self, lease_ids: Sequence[str], timeout: float) -> list[str]:
        # The only settlement of the protocol that ends a stream without settling the leases.
        ending = Settlement(lease_ids, Outcome.EXTEND, self._lease_seconds, close_stream=True)
        return await self._settle(ending, timeout)

    async def connected(self) -> bool:
        return was_connected(await self._responses.initial_metadata())


class GrpcLook:
    """A `Peek` call; see `Look`."""

    def __init__(self, responses: Responses, endpoint: Endpoint, queue: str) -> None:
        self._responses = responses
        self._endpoint = endpoint
        self._queue = queue
        self.cancel = responses.cancel

    async def next(self) -> list[PeekedMessage] | None:
        response: pb.PeekResponse | None = await heard(self._responses.read(), self._endpoint)
        return None if response is None else shown([response], self._queue)


async def heard(response: Coroutine[Any, Any, Any], endpoint: Endpoint) -> Any:
    """Await one response; translate gRPC failures."""
    try:
        return await response
    except ChannelClosed as error:
        raise Unavailable("the subscription was given up") from error
    except grpc.RpcError as error:
        call: Any = error
        if call.code() in LOST and not handshake_failed(call):
            details = call.details() or ""
            way = f"connection{endpoint.detour}"
            what = f"no {way}" if details.startswith(NEVER_MADE) else f"{way} lost"
            lost = Unavailable(f"{what}: {details}{hint(details)}")
            raise endpoint.mismatch(details) or lost from error
        raise from_wire(call, endpoint.detour) from error


def shown(responses: Iterable[pb.PeekResponse], queue: str) -> list[PeekedMessage]:
    """Return the messages of responses to a `Peek`."""
    return [
        PeekedMessage.show(
            peeked.message,
            queue,
            State(peeked.state),
            peeked.consumer,
            peeked.state_age_ms,
            peeked.ready_time_ms,
            peeked.expire_time_ms,
            peeked.blocked,
        )
        for response in responses
        for peeked in response.messages
    ]
