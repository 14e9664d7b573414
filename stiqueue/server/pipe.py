"""Requests over one open stream: started in order, and each answered under its number once it is done."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc
import grpc.aio

from stiqueue._version import __version__
from stiqueue.errors import InvalidRequest, StiQueueError, Unavailable
from stiqueue.rules.later import Later
from stiqueue.server.delivery import Context
from stiqueue.server.requests import DEFECTS, Requests
from stiqueue.server.servicer import Servicer, reports_errors
from stiqueue.v1 import pipe_pb2 as pb
from stiqueue.v1 import pipe_pb2_grpc
from stiqueue.wire.metadata import VERSION_KEY
from stiqueue.wire.status import to_wire

MOST_UNANSWERED = 1_000
"""Requests of one pipe that are under way at a time; no further one is read."""


class PipeServicer(Servicer, pipe_pb2_grpc.PipeServiceServicer):
    """Serves `stiqueue.v1.PipeService`, on one event loop."""

    @reports_errors
    async def Pipe(  # type: ignore[override]  # writes to its context instead of yielding
        self, request_iterator: Any, context: Context
    ) -> None:
        """Answer requests until the client closes its side; see ``pipe.proto``."""
        self.streams.pipes.check_room()
        pipe = Pipe(self.requests, context)
        with self.streams.pipes.entered(pipe):
            await pipe.run()


class Pipe:
    """One pipe. Not thread-safe: used by the event loop."""

    def __init__(self, requests: Requests, context: Context) -> None:
        """Serve `requests` to the client of `context`."""
        self._context = context
        self._requests = requests
        self._serve: dict[str, tuple[str, Callable[[Any], Any]]] = {
            "enq": ("Enq", requests.enq),
            "ack": ("Ack", requests.ack),
            "cnt": ("Cnt", requests.cnt),
        }
        self._answers: deque[pb.PipeResponse] = deque()
        """Answers to write. If no task is writing, the task that adds the first answer writes all of them."""
        self._writing = False
        self._under_way = 0
        """The number of requests that were not answered at once."""
        self._tasks: set[asyncio.Future[Any]] = set()
        """The tasks of requests under way, if they have one."""
        self._lost: grpc.aio.InternalError | None = None
        """The error of the lost connection; None while it works."""
        self._progress = asyncio.Event()
        """Set when a request under way is answered."""
        self._task = asyncio.current_task()
        self._stopping = False
        self._is_reading = False
        """Whether the task only waits for a request, so that it can be cancelled without tearing a write."""

    async def run(self) -> None:
        """Serve until the client closes its side.

        Raises:
            Unavailable: the client has left, or the server is stopping.
        """
        try:
            # Tells the client at once that the pipe is open, and a proxy that the answer has begun.
            await self._context.send_initial_metadata(((VERSION_KEY, __version__),))
            await self._read()
        except grpc.aio.InternalError as error:
            raise Unavailable(f"could not send: {error}") from None
        except asyncio.CancelledError:
            if not self._stopping:  # the client has left
                raise
        await self._until(0)
        if self._stopping:
            raise Unavailable("the server is stopping", "SHUTTING_DOWN")

    def stop(self, now: bool = False) -> None:
        """Read no further request, and end once all requests read so far are answered."""
        self._stopping = True
        if self._is_reading and self._task is not None:
            self._task.cancel()

    async def _read(self) -> None:
        read = self._context.read
        while not self._stopping:
            self._is_reading = True
            request = await read()
            self._is_reading = False
            if request is grpc.aio.EOF:
                return
            self._begin(request)
            if self._answers and not self._writing:
                await self._write()
            if self._under_way >= MOST_UNANSWERED:
                await self._until(MOST_UNANSWERED - 1)

    async def _until(self, most: int) -> None:
        """Wait until at most `most` requests are under way and all answers are written."""
        while self._under_way > most or self._writing:
            self._progress.clear()
            if self._lost is not None:
                raise Unavailable(f"could not send: {self._lost}")
            await self._progress.wait()

    def _begin(self, request: pb.PipeRequest) -> None:
        """Serve `request`; answer at once, or when it is done."""
        began = time.perf_counter()
        kind = request.WhichOneof("request")
        try:
            if kind is None:
                raise InvalidRequest("request: it is of an unknown kind", "BAD_PIPE_REQUEST")
            method, serve = self._serve[kind]
            answer = serve(getattr(request, kind))
        except (StiQueueError, *DEFECTS) as error:
            self._fail(request, kind, began, error)
            return
        if isinstance(answer, Later):
            self._under_way += 1
            answer.when_done(partial(self._done, request, kind, began))
        elif isinstance(answer, Awaitable):
            self._under_way += 1
            task = asyncio.ensure_future(answer)
            self._tasks.add(task)
            task.add_done_callback(partial(self._task_done, request, kind, began))
        else:
            self._requests.served(method, "OK", began)
            self._answers.append(pb.PipeResponse(number=request.number, **{kind: answer}))

    def _task_done(self, request: pb.PipeRequest, kind: str, began: float, task: asyncio.Future[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            self._under_way -= 1
            self._progress.set()
        else:
            error = task.exception()
            self._done(request, kind, began, None if error else task.result(), error)

    def _done(self, request: pb.PipeRequest, kind: str, began: float, answer: Any, error: BaseException | None) -> None:
        self._under_way -= 1
        self._progress.set()
        if error is not None:
            self._fail(request, kind, began, error)
        else:
            self._requests.served(self._serve[kind][0], "OK", began)
            self._answers.append(pb.PipeResponse(number=request.number, **{kind: answer}))
        if not self._writing:
            self._writing = True
            writing = asyncio.ensure_future(self._write())
            writing.add_done_callback(self._written)

    def _fail(self, request: pb.PipeRequest, kind: str | None, began: float, error: BaseException) -> None:
        method = self._serve[kind][0] if kind else "Pipe"
        code, text, _ = to_wire(
            failure := self._requests.failure(method, getattr(request, kind) if kind else request, error)
        )
        self._requests.served(method, code.name, began)
        told = pb.PipeError(code=code.value[0], message=text, reason=failure.reason)
        self._answers.append(pb.PipeResponse(number=request.number, error=told))

    async def _write(self) -> None:
        """Write all answers, including those added meanwhile."""
        self._writing = True
        try:
            while self._answers:
                await self._context.write(self._answers.popleft())
        finally:
            self._writing = False
            self._progress.set()

    def _written(self, done: asyncio.Future[None]) -> None:
        error = None if done.cancelled() else done.exception()
        if isinstance(error, grpc.aio.InternalError):
            self._lost = error
