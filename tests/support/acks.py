"""A server that answers acks as a test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc.aio

Verdict = Callable[[Any], grpc.StatusCode | None]
"""Told an `AckRequest`; returns how the call fails, and nothing is done, or None."""


class Acks(grpc.aio.ServerInterceptor):  # type: ignore[misc, unused-ignore]
    """Lets acks fail before the server has seen them."""

    def __init__(self, verdict: Verdict = lambda request: None) -> None:
        """Ask `verdict` about each."""
        self.verdict = verdict

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Answer in the server's place where the verdict says so."""
        if handler_call_details.method.endswith("/Pipe"):
            return None  # UNIMPLEMENTED: clients make calls instead
        handler = await continuation(handler_call_details)
        if not handler_call_details.method.endswith("/Ack"):
            return handler

        async def ack(request: Any, context: Any) -> Any:
            code = self.verdict(request)
            if code is not None:
                await context.abort(code, f"the test says {code.name}")
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(ack, handler.request_deserializer, handler.response_serializer)
