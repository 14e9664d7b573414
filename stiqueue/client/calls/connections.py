"""The connections of one client to one server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from stiqueue.client.calls.endpoint import Endpoint
from stiqueue.client.calls.kinds import Calls, PipeCall, Responses, Source
from stiqueue.errors import Closed
from stiqueue.v1 import admin_pb2_grpc, pipe_pb2, queue_pb2_grpc
from stiqueue.wire.metadata import PIPE_SERVICE_NAME

T = TypeVar("T")

CALLS_PER_CONNECTION = 50
"""The most calls at a time on one connection, streams included: half of the server's default limit.

A server counts a call for a moment longer than its client does, especially when busy. If a client used the whole limit,
the server would refuse calls (RST_STREAM).
"""


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
    """A channel and the number of its calls in progress."""

    def __init__(self, channel: Any, metadata: Any) -> None:
        self.channel = channel
        self._metadata = metadata
        self.stub: Any = queue_pb2_grpc.QueueServiceStub(channel)
        vars(self.stub).update(vars(admin_pb2_grpc.AdminServiceStub(channel)))
        self.calls = 0
        if metadata:
            for name, method in vars(self.stub).items():
                setattr(self.stub, name, _Authorized(method, metadata))

    def pipe(self, heard: Callable[[bytes], Any]) -> Any:
        """Return the method that opens a pipe and parses its responses by `heard`."""
        method = self.channel.stream_stream(
            f"/{PIPE_SERVICE_NAME}/Pipe",
            request_serializer=pipe_pb2.PipeRequest.SerializeToString,
            response_deserializer=heard,
        )
        return _Authorized(method, self._metadata) if self._metadata else method


class Connections:
    """Makes calls by the names of their methods. Connects on first use, and again for more calls. Thread-safe.

    All methods raise the errors of `Calls`, and `Closed` after `close`.
    """

    def __init__(self, endpoint: Endpoint, calls: Calls) -> None:
        """Reach the server at `endpoint` by `calls`."""
        self._endpoint = endpoint
        self._calls = calls
        self._lock = threading.Lock()
        """Protects the three below and the counts of the connections."""
        self._connections: list[_Connection] = []
        self._with_room: dict[_Connection, None] = {}
        """The connections with room for calls, the one to use first in front."""
        self._closed = False

    async def unary(self, name: str, request: Any, timeout: float) -> Any:
        """Make a call and wait for the response."""
        connection = self._take()
        try:
            return await self._calls.unary(getattr(connection.stub, name), request, timeout)
        finally:
            self._give_back(connection)

    async def collect(self, name: str, request: Any, timeout: float) -> list[Any]:
        """Make a call that streams its responses; return them all."""
        connection = self._take()
        try:
            return await self._calls.collect(getattr(connection.stub, name), request, timeout)
        finally:
            self._give_back(connection)

    def begin(self, name: str, request: Any, timeout: float) -> Callable[[], Coroutine[Any, Any, Any]]:
        """Begin a call; the function returned waits for the response."""
        return self._with_end(lambda method, ended: self._calls.begin(method, request, timeout, ended), name)

    def stream(self, name: str, request: Any) -> Responses:
        """Make a call that streams its responses."""
        return self._with_end(lambda method, ended: self._calls.stream(method, request, ended), name)

    def pipe(self, feed: Source) -> PipeCall:
        """Open a pipe."""
        connection = self._take()
        try:
            return self._calls.pipe(connection.pipe(feed.heard), feed, lambda: self._give_back(connection))
        except BaseException:
            self._give_back(connection)
            raise

    def check(self) -> None:
        """Raise the error that would keep this client from connecting to any server.

        Raises:
            InvalidRequest: a file of `tls` cannot be read.
            NotSupported: gRPC does not work in this process.
        """
        with self._lock:
            if not self._connections:
                self._connect()

    async def close(self) -> None:
        """Close all connections; their calls and streams end."""
        with self._lock:
            self._closed = True
            connections, self._connections = self._connections, []
            self._with_room.clear()
        for connection in connections:
            await self._calls.close(connection.channel)

    def _with_end(self, begin: Callable[[Any, Callable[[], None]], T], name: str) -> T:
        """Begin a call that releases its place when it ends; return what `begin` returned."""
        connection = self._take()
        try:
            return begin(getattr(connection.stub, name), lambda: self._give_back(connection))
        except BaseException:
            self._give_back(connection)
            raise

    def _take(self) -> _Connection:
        """Return a connection with room for a call, and count the call."""
        with self._lock:
            connection = next(iter(self._with_room), None) or self._connect()
            connection.calls += 1
            if connection.calls == CALLS_PER_CONNECTION:
                del self._with_room[connection]
            return connection

    def _give_back(self, connection: _Connection) -> None:
        with self._lock:
            connection.calls -= 1
            if not self._closed:
                self._with_room.setdefault(connection)

    def _connect(self) -> _Connection:
        """Open a connection; the lock is held."""
        if self._closed:
            raise Closed("the client was closed")
        connection = _Connection(self._calls.open(self._endpoint), self._endpoint.metadata)
        self._connections.append(connection)
        self._with_room[connection] = None
        return connection
