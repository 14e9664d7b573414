"""A server with RPCs of its own beside ours: `Rev` takes the next message and returns it reversed.

    python examples/extend_server.py --port 1234

Three ways to extend `SQServer`: a subclass that adds a service (it can reach the messages), the argument `services`
(for what needs no messages), and the argument `interceptors` (for what concerns every call).
"""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio
from google.protobuf.wrappers_pb2 import Int64Value, StringValue

from stiqueue import LocalSQClient, SQServer

PATIENCE = 5.0
"""Seconds that `Rev` waits for a message."""


class RevServicer:
    """Methods may be async or plain."""

    def __init__(self, server: SQServer) -> None:
        self.server = server

    async def Rev(self, request: StringValue, context: Any) -> StringValue:
        """Take the next message of a queue and return it reversed.

        An async method runs on the server's event loop, so it must not block: what does goes to a thread.
        """
        queue = LocalSQClient(engine=self.server.engine, queue=request.value, auto_ack=False)
        try:
            message = await asyncio.to_thread(queue.deq, PATIENCE)
            if message is None:
                await context.abort(grpc.StatusCode.NOT_FOUND, f"no message within {PATIENCE:g} s")
            await asyncio.to_thread(message.ack)
            return StringValue(value=message.decode(errors="replace")[::-1])
        finally:
            queue.close()  # gives the message back unless it is acked, also when the caller has hung up

    def Waiting(self, request: StringValue, context: Any) -> Int64Value:
        """Return how many messages of a queue are ready. A plain method runs in a thread, so it may block."""
        with LocalSQClient(engine=self.server.engine, queue=request.value) as queue:
            return Int64Value(value=queue.cnt())


def add_RevServicer_to_server(servicer: RevServicer, server: Any) -> None:
    """Do by hand what grpcio-tools generates for a .proto file with this service."""
    text, number = (StringValue.FromString, StringValue.SerializeToString), Int64Value.SerializeToString
    handlers = {
        "Rev": grpc.unary_unary_rpc_method_handler(servicer.Rev, *text),
        "Waiting": grpc.unary_unary_rpc_method_handler(servicer.Waiting, text[0], number),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("examples.Rev", handlers),))


class ShoutServicer:
    async def Shout(self, request: StringValue, context: Any) -> StringValue:
        return StringValue(value=request.value.upper())


def add_ShoutServicer_to_server(servicer: ShoutServicer, server: Any) -> None:
    text = (StringValue.FromString, StringValue.SerializeToString)
    handlers = {"Shout": grpc.unary_unary_rpc_method_handler(servicer.Shout, *text)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("examples.Shout", handlers),))


class RevServer(SQServer):
    def add_services(self, server: grpc.aio.Server) -> list[str]:
        """Add `Rev` to what the argument `services` asks for; return all names, for reflection and health."""
        add_RevServicer_to_server(RevServicer(self), server)
        return [*super().add_services(server), "examples.Rev"]


class CallLog(grpc.aio.ServerInterceptor):
    """Logs the name of every call, those of StiQueue included. A pipe is one call, whatever it carries."""

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        logging.getLogger("stiqueue").info("call of %s", handler_call_details.method)
        return await continuation(handler_call_details)


def main() -> None:
    parser = argparse.ArgumentParser(description="A message queue server that can also reverse.")
    parser.add_argument("--port", type=int, default=1234)
    port = parser.parse_args().port
    logging.basicConfig(level=logging.INFO)
    shout = (add_ShoutServicer_to_server, ShoutServicer())
    RevServer(port=port, services=[shout], interceptors=[CallLog()]).listen()


if __name__ == "__main__":
    main()
