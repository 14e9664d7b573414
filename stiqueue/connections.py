"""The connections of one client to one server."""

from __future__ import annotations

import threading
from typing import Any

from stiqueue.calls import Calls, Responses
from stiqueue.endpoint import Endpoint
from stiqueue.errors import Closed
from stiqueue.v1 import queue_pb2_grpc

STREAMS_PER_CONNECTION = 50
"""Open `Deq` streams on one connection; half of what a server allows, so that other calls never queue behind them."""


class _Authorized:
    """A method of a stub, called with metadata."""

    def __init__(self, method: Any, metadata: Any) -> None:
        self._method = method
        self._metadata = metadata

    def __call__(self, request: Any, timeout: float | None = None) -> Any:
        return self._method(request, timeout=timeout, metadata=self._metadata)

    def future(self, request: Any, timeout: float | None = None) -> Any:
        return self._method.future(request, timeout=timeout, metadata=self._metadata)


class _Connection:
    """One channel, and how many streams are open on it."""

    def __init__(self, channel: Any, metadata: Any) -> None:
        self.channel = channel
        self.stub: Any = queue_pb2_grpc.QueueServiceStub(channel)
        self.streams = 0
        if metadata:
            for name, method in vars(self.stub).items():
                setattr(self.stub, name, _Authorized(method, metadata))


class Connections:
    """Connects on first use; opens further connections as streams need them. Thread-safe."""

    def __init__(self, endpoint: Endpoint, calls: Calls) -> None:
        """Reach the server at `endpoint` by `calls`."""
        self._endpoint = endpoint
        self._calls = calls
        self._lock = threading.Lock()
        """Protects the two below and the stream counts of the connections."""
        self._connections: list[_Connection] = []
        self._closed = False

    def stub(self) -> Any:
        """Return the stub for calls that are not streams."""
        with self._lock:
            return (self._connections[0] if self._connections else self._connect()).stub

    def deq(self, request: Any) -> Responses:
        """Open a `Deq` stream on a connection that has room for it."""
        with self._lock:
            connection = next((each for each in self._connections if each.streams < STREAMS_PER_CONNECTION), None)
            if connection is None:
                connection = self._connect()
            connection.streams += 1

        def ended() -> None:
            with self._lock:
                connection.streams -= 1

        return self._calls.stream(connection.stub.Deq, request, ended)

    async def close(self) -> None:
        """Close all; calls and streams under way end."""
        with self._lock:
            self._closed = True
            connections, self._connections = self._connections, []
        for connection in connections:
            await self._calls.close(connection.channel)

    def _connect(self) -> _Connection:
        """Open a connection; the lock is held."""
        if self._closed:
            raise Closed("the client was closed")
        connection = _Connection(self._calls.open(self._endpoint), self._endpoint.metadata)
        self._connections.append(connection)
        return connection
