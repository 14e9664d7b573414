"""The server of the floor: asyncio gRPC that answers bytes with the same bytes; ``python -m benchmark.echo PORT``."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import grpc

SERVICE, NAME = "benchmark.Echo", "Echo"
METHOD = f"/{SERVICE}/{NAME}"


async def echo(request: bytes, context: Any) -> bytes:
    """Answer with the request."""
    return request


async def serve(port: int) -> None:
    """Serve for ever."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
    handler = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {NAME: handler}),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    """Serve on the port of the command line, with the event loop that StiQueue would use."""
    port = int(sys.argv[1])
    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(port))
    else:
        uvloop.run(serve(port))


if __name__ == "__main__":
    main()
