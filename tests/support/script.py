"""A server that answers each `Enq`, on a pipe or as a call, by a script, to see what a client makes of each answer."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import grpc

from stiqueue import StiQueueError
from stiqueue.v1 import pipe_pb2 as pp
from stiqueue.v1 import pipe_pb2_grpc, queue_pb2_grpc
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.wire.status import to_wire

from .waiting import PATIENCE

LOST = ConnectionError("the answer is lost")
Line = StiQueueError | ConnectionError | None
"""How one request goes. None: it is done; `LOST`: it is done and nobody is told; an error of ours: it is refused."""


class Script(queue_pb2_grpc.QueueServiceServicer, pipe_pb2_grpc.PipeServiceServicer):
    """Plays its lines one after the other; what comes after the last is done."""

    def __init__(self, *lines: Line) -> None:
        self.port = 0
        self.asked: list[pb.EnqRequest] = []
        """The requests, in order."""
        self.begun = threading.Event()
        """Set when the first one has come."""
        self.go = threading.Event()
        """To be set before any is answered."""
        self._lines = list(lines)

    def Pipe(self, request_iterator: Iterator[pp.PipeRequest], context: grpc.ServicerContext) -> Iterator[Any]:
        read: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def read_all() -> None:
            with suppress(Exception):  # the client has left
                for request in request_iterator:
                    read.put((request.number, self._next(request.enq)))
            read.put(None)

        threading.Thread(target=read_all, daemon=True).start()
        while (each := read.get()) is not None:
            number, (line, answer) = each
            assert self.go.wait(PATIENCE)
            if line is LOST:
                context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            if isinstance(line, StiQueueError):
                code, text, _ = to_wire(line)
                error = pp.PipeError(code=code.value[0], message=text, reason=line.reason)
                yield pp.PipeResponse(number=number, error=error)
            else:
                yield pp.PipeResponse(number=number, enq=answer)

    def _next(self, request: pb.EnqRequest) -> tuple[Line, pb.EnqResponse]:
        """Take in a request; return how it goes, and its answer if it is done."""
        self.asked.append(request)
        line = self._lines.pop(0) if self._lines else None
        self.begun.set()
        return line, pb.EnqResponse(first_id=100 * len(self.asked), count=len(request.bodies))

    def Enq(self, request: pb.EnqRequest, context: grpc.ServicerContext) -> pb.EnqResponse:
        line, answer = self._next(request)
        assert self.go.wait(PATIENCE)
        if isinstance(line, StiQueueError):
            code, text, trailing = to_wire(line)
            context.set_trailing_metadata(trailing)
            context.abort(code, text)
        if line is LOST:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return answer

    @property
    def request_ids(self) -> dict[bytes, set[str]]:
        """Under which request ids each body has come."""
        found: dict[bytes, set[str]] = {}
        for request in self.asked:
            for body in request.bodies:
                found.setdefault(body, set()).add(request.request_id)
        return found


@contextmanager
def played(script: Script) -> Iterator[Script]:
    """Serve a script at `script.port`."""
    server = grpc.server(ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
    queue_pb2_grpc.add_QueueServiceServicer_to_server(script, server)
    pipe_pb2_grpc.add_PipeServiceServicer_to_server(script, server)
    script.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield script
    finally:
        script.go.set()
        server.stop(0).wait(PATIENCE)
