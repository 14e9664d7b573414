"""Refuses calls without a valid token, and checks the rights of the current call's token."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextvars import ContextVar
from typing import Any

import grpc
import grpc.aio

from stiqueue.errors import AccessDenied, InvalidRequest, Unauthenticated
from stiqueue.server.access.tokens import Grant, Right, Tokens
from stiqueue.settings import Settings
from stiqueue.wire import settings as wire_settings
from stiqueue.wire.hosts import is_loopback
from stiqueue.wire.metadata import PIPE_SERVICE_NAME, SERVICE_NAME, bearer
from stiqueue.wire.status import end, to_wire

OPEN = "/grpc.health.v1.Health/"
"""Probes of orchestrators carry no tokens; they learn whether the server serves, and nothing else."""

NO_TOKEN = "the call has no valid token"

OURS = frozenset({f"/{SERVICE_NAME}", f"/{PIPE_SERVICE_NAME}", f"/{wire_settings.SERVICE_NAME}"})
"""The services whose refused calls are counted."""

Observe = Callable[[str, str, float], None]
"""Called with (method, status code, seconds) when a call ends."""

_grant: ContextVar[Grant | None] = ContextVar("grant", default=None)
"""The grant of the call that this task serves."""


class Guard(grpc.aio.ServerInterceptor):
    """Refuses calls without a valid token, before any part of the request is read: UNAUTHENTICATED."""

    def __init__(self, tokens: Tokens) -> None:
        """Let in the holders of `tokens`."""
        self.tokens = tokens
        self.observe: Observe | None = None
        """Called for each refused call, if set."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """Return the handler of the call, or one that refuses it."""
        handler = await continuation(details)
        if handler is None or details.method.startswith(OPEN):
            return handler
        grant = self.tokens.find(bearer(details.invocation_metadata))
        if grant is None:
            service, _, method = details.method.rpartition("/")
            if self.observe is not None and service in OURS:
                self.observe(method, grpc.StatusCode.UNAUTHENTICATED.name, 0.0)
            return _refusal(handler)
        _grant.set(grant)
        return handler

    def current(self) -> Grant:
        """Return the grant of the call that the current task serves.

        Raises:
            Unauthenticated: it has none.
        """
        grant = _grant.get()
        if grant is None:
            raise Unauthenticated(NO_TOKEN)
        return grant

    def check(self, right: Right, queues: Iterable[str] = ()) -> None:
        """Check that the current call has `right`, on all of `queues`.

        Raises:
            Unauthenticated: it has no valid token.
            AccessDenied: its token lacks the right; names the right and the queue.
        """
        grant = self.current()
        if not grant.allows(right):
            raise AccessDenied(f"the token has no right to {right.value}")
        for queue in queues:
            if not grant.allows(right, queue):
                raise AccessDenied(f"the token has no right to {right.value} on {queue}")


def _refusal(handler: Any) -> Any:
    """Return a handler of the same kind as `handler` that reads nothing and refuses."""
    status = to_wire(Unauthenticated(NO_TOKEN))

    async def unary(_: Any, context: Any) -> bytes:
        end(context, *status)
        return b""

    async def stream(_: Any, context: Any) -> AsyncIterator[bytes]:
        end(context, *status)
        return
        yield b""  # what makes it a stream

    kinds = {
        (False, False): (grpc.unary_unary_rpc_method_handler, unary),
        (False, True): (grpc.unary_stream_rpc_method_handler, stream),
        (True, False): (grpc.stream_unary_rpc_method_handler, unary),
        (True, True): (grpc.stream_stream_rpc_method_handler, stream),
    }
    make, answer = kinds[handler.request_streaming, handler.response_streaming]
    return make(answer)


def guard_for(settings: Settings, logger: logging.Logger) -> Guard | None:
    """Return the guard that a server's options ask for.

    Raises:
        InvalidRequest: the file of tokens is wrong, or tokens would travel in the open.
    """
    if not settings.tokens:
        return None
    if settings.tls_cert is None and not is_loopback(settings.host):
        raise InvalidRequest(
            f"tokens: everybody on the way to {settings.host} could read them; --tls-cert and --tls-key are needed",
            "BAD_OPTION",
        )
    return Guard(Tokens(settings.tokens, logger))
