"""A TCP proxy between clients and a server that can break their connections in several ways."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Coroutine
from enum import Enum
from types import TracebackType
from typing import Any

from tests.support.ports import free_port

from .frames import DATA, END_STREAM, HEADERS, RST_STREAM, FrameScanner

CHUNK_BYTES = 1 << 16
CALL_SECONDS = 5.0
"""How long an order to the proxy's thread may take."""


class Direction(Enum):
    """Which way bytes go."""

    UP = "client to server"
    DOWN = "server to client"


class Mode(Enum):
    """What the proxy does with the bytes of one direction."""

    PASS = "pass"
    STALL = "stop reading: the sender's buffers fill up"
    DROP = "read and throw away: half open, as after a lost route"
    DELAY = "pass on later"


class Proxy:
    """Passes connections on to a server, on an event loop in a thread of its own. Its methods are for other threads.

    All modes hold for present and future connections. Every connection can also be reset, and the answer of the next
    call be lost, once.
    """

    def __init__(self, *targets: str, name: str = "proxy") -> None:
        """Stand before `targets`, each a host:port; nothing is opened before `start`.

        Several make it a balancer: each connection goes to the next one that accepts it.
        """
        self.name = name
        self.target = f"127.0.0.1:{free_port()}"
        """Where clients find it."""
        self.dropped = 0
        """Bytes thrown away."""
        self.passed = 0
        """Bytes passed on."""
        self.connections = 0
        """Connections accepted so far."""
        self.answer_lost = threading.Event()
        """Set when the answer that `lose_next_answer` asked for was thrown away."""
        self.cut = threading.Event()
        """Set when a connection was closed as `cut_after` asked."""
        self._left: dict[Direction, int] = {}
        """How many more bytes pass before a connection is cut."""
        self._servers = [(host, int(port)) for host, _, port in (target.rpartition(":") for target in targets)]
        self._turn = 0
        self._modes = {Direction.UP: Mode.PASS, Direction.DOWN: Mode.PASS}
        self._delay = 0.0
        self._armed = False
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._changed = asyncio.Event()
        self._listener: socket.socket | None = None

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._links)

    def start(self) -> Proxy:
        """Begin to accept connections."""
        self._thread.start()
        self._call(self._listen())
        return self

    def stop(self) -> None:
        """Reset every connection and stop."""
        self._call(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_SECONDS)
        self._loop.close()

    def set(self, mode: Mode, *directions: Direction, delay: float = 0.0) -> None:
        """Treat the bytes of `directions` (default: both) so from now on."""

        async def change() -> None:
            for direction in directions or Direction:
                self._modes[direction] = mode
            self._delay = delay
            self._changed.set()
            self._changed = asyncio.Event()

        self._call(change())

    def reset(self) -> int:
        """Reset every connection at once; return how many there were."""

        async def reset() -> int:
            links = list(self._links)
            for link in links:
                link.reset()
            return len(links)

        count: int = self._call(reset())
        return count

    def heal(self) -> None:
        """Pass bytes on from now on, on new connections: in one that lost bytes, none may follow them."""

        async def heal() -> None:
            for link in list(self._links):
                link.reset()
            self._modes = dict.fromkeys(Direction, Mode.PASS)
            self._changed.set()
            self._changed = asyncio.Event()

        self._call(heal())

    def lose_next_answer(self) -> None:
        """Pass the next call on, but throw away its answer and reset its connection then."""

        async def arm() -> None:
            self.answer_lost.clear()
            self._armed = True

        self._call(arm())

    def cut_after(self, count: int, direction: Direction) -> None:
        """Pass `count` more bytes in `direction`, then close the connection that has the next one, once."""

        async def arm() -> None:
            self.cut.clear()
            self._left = {direction: count}

        self._call(arm())

    def __enter__(self) -> Proxy:
        """Start it."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it."""
        self.stop()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    async def _listen(self) -> None:
        host, _, port = self.target.rpartition(":")
        listener = socket.create_server((host, int(port)), backlog=256)
        listener.setblocking(False)
        self._listener = listener
        # Not by a task with `sock_accept`: one that is cancelled at the wrong moment loses the connection.
        self._loop.add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            client, _ = listener.accept()
            self.connections += 1
            _Link(self, client).start()

    async def _stop(self) -> None:
        assert self._listener is not None
        self._loop.remove_reader(self._listener)
        self._listener.close()
        links = list(self._links)
        for link in links:
            link.reset()
        await asyncio.gather(*(link.ended() for link in links), return_exceptions=True)

    async def connect(self) -> socket.socket:
        """Return a connection to the next server that accepts one.

        Raises:
            OSError: none does.
        """
        for _ in self._servers:
            self._turn += 1
            server = socket.socket()
            server.setblocking(False)
            try:
                await self._loop.sock_connect(server, self._servers[self._turn % len(self._servers)])
                return server
            except BaseException as error:
                server.close()
                if not isinstance(error, OSError):
                    raise
                refused = error
        raise refused


class _Link:
    """One client's connection and its continuation to the server. Lives on the proxy's loop."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._client.setblocking(False)
        self._server: socket.socket | None = None
        self._scanners = {Direction.UP: FrameScanner(True), Direction.DOWN: FrameScanner(False)}
        self._doomed = 0
        """The HTTP/2 stream whose answer is to be lost; 0: none."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to pass bytes on."""
        self._proxy._links.add(self)
        self._task = asyncio.ensure_future(self._run())
        self._task.add_done_callback(self._close)  # not at its end: one that is cancelled at once never begins

    def reset(self) -> None:
        """End both connections with RST, without sending what is under way."""
        linger = struct.pack("ii", 1, 0)
        for end in filter(None, (self._client, self._server)):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        assert self._task is not None
        self._task.cancel()

    async def ended(self) -> None:
        """Wait until both connections are closed."""
        assert self._task is not None
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            self._server = server = await self._proxy.connect()
            pumps = [
                asyncio.ensure_future(self._pump(self._client, server, Direction.UP)),
                asyncio.ensure_future(self._pump(server, self._client, Direction.DOWN)),
            ]
            try:
                await asyncio.gather(*pumps)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.wait(pumps)
        except (OSError, asyncio.CancelledError):
            pass  # one end has broken: so does the other

    def _close(self, _: asyncio.Task[None]) -> None:
        self._proxy._links.discard(self)
        self._client.close()
        if self._server is not None:
            self._server.close()

    async def _pump(self, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        proxy = self._proxy
        while True:
            await self._pass_gate(direction)
            data = await proxy._loop.sock_recv(source, CHUNK_BYTES)
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            await self._pass_gate(direction)
            if self._is_lost(data, direction) or proxy._modes[direction] is Mode.DROP:
                proxy.dropped += len(data)
                continue
            if proxy._modes[direction] is Mode.DELAY:
                await asyncio.sleep(proxy._delay)
            left = proxy._left.get(direction)
            if left is not None and len(data) > left:
                proxy._left = {}
                await proxy._loop.sock_sendall(sink, data[:left])
                proxy.cut.set()
                raise ConnectionAbortedError  # closes both ends, but does not reset them: that would overtake the bytes
            if left is not None:
                proxy._left[direction] = left - len(data)
            await proxy._loop.sock_sendall(sink, data)
            proxy.passed += len(data)
            await asyncio.sleep(0)  # what can be received and sent at once would hold up all others

    async def _pass_gate(self, direction: Direction) -> None:
        """Wait while this direction is stalled."""
        while self._proxy._modes[direction] is Mode.STALL:
            await self._proxy._changed.wait()

    def _is_lost(self, data: bytes, direction: Direction) -> bool:
        """Look for the call whose answer is to be lost, and for the end of that answer."""
        for kind, flags, number in self._scanners[direction].feed(data):
            if direction is Direction.UP:
                if kind in (HEADERS, DATA) and self._proxy._armed:  # a call, or a request on a pipe
                    self._proxy._armed = False
                    self._doomed = number
            elif number == self._doomed and (kind in (RST_STREAM, DATA) or (kind == HEADERS and flags & END_STREAM)):
                self._proxy.answer_lost.set()
                self.reset()
        return direction is Direction.DOWN and self._doomed > 0
