"""The floor: a bare unary gRPC call that a server answers with what it got."""

from __future__ import annotations

import grpc

from benchmark.clients.base import Client
from benchmark.echo import METHOD


class EchoClient(Client):
    """A blocking stub on one channel. `enq` is one call; nothing is kept, so there is nothing to dequeue."""

    def __init__(self, port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", -1)])
        self._call = self._channel.unary_unary(METHOD)

    def enq(self, body: bytes) -> None:
        self._call(body)

    def close(self) -> None:
        self._channel.close()
