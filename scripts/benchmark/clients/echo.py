"""The floor: a bare unary gRPC call that a server answers with what it got, of either of gRPC's libraries."""

from __future__ import annotations

import asyncio
import time

import grpc
import grpc.aio

from benchmark.clients.base import Client, Spread, Unsupported, body_of, timed
from benchmark.echo import METHOD


class EchoClient(Client):
    """A blocking stub on one channel. `enq` is one call; nothing is kept, so there is nothing to dequeue."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", -1)])
        self._call = self._channel.unary_unary(METHOD)

    def enq(self, body: bytes) -> None:
        self._call(body)

    def call_each(self, number: int, size: int) -> Spread:
        """Make two bare calls, one after the other: the least that a request and its answer take through a server."""
        body, took = body_of(size), []
        for _ in range(number):
            began = time.perf_counter_ns()
            self._call(body)
            self._call(body)
            took.append(time.perf_counter_ns() - began)
        return Spread.of(took)

    def close(self) -> None:
        self._channel.close()


class AsyncEchoClient(Client):
    """The same on an event loop. Only `enq` one by one, to tell what asyncio costs before anything is ours."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.new_event_loop()

        async def connect() -> grpc.aio.Channel:
            options = [("grpc.max_receive_message_length", -1)]
            return grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)

        self._channel = self._loop.run_until_complete(connect())
        self._call = self._channel.unary_unary(METHOD)

    def for_thread(self) -> Client:
        raise Unsupported

    def enq_each(self, number: int, size: int) -> Spread:
        body = body_of(size)
        return Spread.of(self._loop.run_until_complete(timed(number, lambda: self._call(body))))

    def close(self) -> None:
        self._loop.run_until_complete(self._channel.close())
        self._loop.close()
