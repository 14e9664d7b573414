"""Sends parcels as separate calls if the server has no pipe."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

import grpc

from stiqueue.client.backoff import Backoff
from stiqueue.client.calls.connections import Connections
from stiqueue.client.calls.kinds import ChannelClosed
from stiqueue.client.calls.parcel import Parcel, failed, tell, unknown
from stiqueue.client.waiting.concurrency import Signal
from stiqueue.errors import AccessDenied, Closed, StiQueueError, Unavailable

METHODS = {"enq": "Enq", "ack": "Ack", "cnt": "Cnt"}
"""The unary call for each request of a pipe."""
CALL_SECONDS = 5.0
"""How long one try may take. The flows that wait have timeouts of their own, and leave by themselves."""


class JointCalls:
    """Makes calls of parcels, unchanged: their outcome may be unknown."""

    def __init__(
        self,
        connections: Connections,
        closed: Signal,
        explain: Callable[[Any, float], StiQueueError],
        logger: logging.Logger,
    ) -> None:
        """Make calls over `connections` until `closed`; the arguments are those of the sender."""
        self._connections = connections
        self._closed = closed
        self._explain = explain
        self._logger = logger

    async def make(self, parcels: list[Parcel]) -> None:
        """Make a call of each parcel, and repeat it while anybody waits and tries are left."""
        error: StiQueueError = Unavailable("the pipe was closed")
        try:
            for parcel in parcels:
                backoff = Backoff(math.inf, self._logger)
                while parcel.is_awaited:
                    error = await self._call_once(parcel)
                    for item in parcel.items:
                        item.lost = str(error)
                    parcel.items[0].tries -= 1
                    if parcel.items[0].tries <= 0:
                        tell(failed([parcel], error))
                    if parcel.is_awaited:
                        await backoff.pause(error, self._closed)
        except Closed as closed:
            error = closed
        finally:
            tell(failed(parcels, error))

    async def _call_once(self, parcel: Parcel) -> StiQueueError:
        """Make a call of `parcel` and tell its items the outcome; return the error after which to repeat it."""
        name = parcel.request.WhichOneof("request") or ""
        try:
            response = await self._connections.unary(METHODS[name], getattr(parcel.request, name), CALL_SECONDS)
        except ChannelClosed as error:
            raise Closed("the client was closed") from error
        except grpc.RpcError as error:
            failure = self._explain(error, CALL_SECONDS)
            if isinstance(failure, AccessDenied):  # the same for all items
                failure.is_refusal = False
                tell(failed([parcel], failure))
            elif not isinstance(failure, (Unavailable, Closed)):
                tell(failed([parcel], failure if len(parcel.items) == 1 else unknown(failure)))
            return failure
        tell([(item, response, place, None) for place, item in enumerate(parcel.items)])
        return Unavailable()
