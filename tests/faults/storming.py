"""Crowds of clients in one process, on asyncio: those that cancel at any moment, and those that wait for a message."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
from collections.abc import Sequence
from typing import TypeAlias

import grpc
import grpc.aio

from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1 import queue_pb2_grpc

from .control import Control
from .notebook import CHANNEL_OPTIONS, Held, Notebook
from .recorder import Recorder

STREAMS_PER_CHANNEL = 25
CALL_SECONDS = 10.0

AsyncStub: TypeAlias = "queue_pb2_grpc.QueueServiceAsyncStub"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options of a crowd."""
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=0, help="streams that each client opens; 0: until stopped")
    parser.add_argument(
        "--patience-ms",
        type=float,
        default=2.0,
        help="a stream is cancelled within this, from when it was asked for or from when the server has it",
    )
    parser.add_argument("--ack", type=float, default=0.5, help="the chance that a delivery is acknowledged")
    parser.add_argument("--prefetch", type=int, default=1, help="at random from 1 to this")


class Crowd:
    """Clients that share a process and its history, each on streams of its own."""

    def __init__(self, options: argparse.Namespace, control: Control, recorder: Recorder) -> None:
        """Remember what is asked for; nothing is opened."""
        self._options = options
        self._control = control
        self._notebook = Notebook(recorder, options.queue)

    async def storm(self) -> None:
        """Open streams and cancel them at random moments, acknowledging some of what comes."""
        self._listen()
        self._control.report("ready")
        rounds = await asyncio.gather(*map(self._storm, range(self._options.clients)))
        self._control.report("stormed", sum(rounds))

    async def wait(self) -> None:
        """Hold one stream per client open, with one message at a time, and acknowledge whatever comes."""
        asked_to_stop = self._listen()
        channels = [self._channel() for _ in range(0, self._options.clients, STREAMS_PER_CHANNEL)]
        stubs = [queue_pb2_grpc.QueueServiceStub(channel) for channel in channels]
        names = [f"{self._options.name}-{n}" for n in range(self._options.clients)]
        request = pb.DeqRequest(queue=self._options.queue, prefetch=1)
        for name in names:
            self._notebook.opens(name)
        calls = [stubs[n // STREAMS_PER_CHANNEL].Deq(request, wait_for_ready=True) for n in range(len(names))]
        await asyncio.gather(*(call.initial_metadata() for call in calls))
        readers = [
            asyncio.ensure_future(self._read(stubs[n // STREAMS_PER_CHANNEL], calls[n], names[n], random.Random(n)))
            for n in range(len(names))
        ]
        self._control.report("ready")
        await asked_to_stop.wait()
        for name, call in zip(names, calls, strict=True):
            self._notebook.ends(name, "stop")
            call.cancel()
        await asyncio.gather(*readers)

    async def _storm(self, number: int) -> int:
        options, rng = self._options, random.Random(f"{self._options.seed}-{number}")
        done = 0
        async with self._channel() as channel:
            stub = queue_pb2_grpc.QueueServiceStub(channel)
            while not self._control.stopped.is_set() and (not options.rounds or done < options.rounds):
                stream = f"{options.name}-{number}.{done}"
                self._notebook.opens(stream)
                call = stub.Deq(pb.DeqRequest(queue=options.queue, prefetch=rng.randint(1, options.prefetch)))
                reader = asyncio.ensure_future(self._read(stub, call, stream, rng))
                if rng.random() < 0.5:  # else most of the short-lived streams never reach the server
                    with contextlib.suppress(grpc.RpcError):
                        await call.initial_metadata()
                await asyncio.sleep(rng.uniform(0, options.patience_ms / 1000))
                self._notebook.ends(stream, "cancel")
                call.cancel()
                await reader
                done += 1
        return done

    async def _read(self, stub: AsyncStub, call: object, stream: str, rng: random.Random) -> None:
        """Write down what comes on one stream, and acknowledge what its client finishes, until the stream ends."""
        assert isinstance(call, grpc.aio.UnaryStreamCall)
        try:
            async for response in call:
                held = self._notebook.receives(response.messages, stream)
                finished = [each for each in held if rng.random() < self._options.ack]
                if finished:
                    await self._ack(stub, finished)
        except (grpc.RpcError, asyncio.CancelledError) as error:
            if not isinstance(error, asyncio.CancelledError) and error.code() != grpc.StatusCode.CANCELLED:
                self._control.report("failed", "Deq", error.code().name, error.details())

    async def _ack(self, stub: AsyncStub, held: Sequence[Held]) -> None:
        self._notebook.settles("ack", held, "invoke")
        try:
            answer = await stub.Ack(pb.AckRequest(lease_ids=[each.lease for each in held]), timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            self._notebook.settles("ack", held, "unknown")
            self._control.report("failed", "Ack", error.code().name, error.details())
        else:
            self._notebook.settles("ack", held, "ok", answer.stale_lease_ids)

    def _channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self._options.target, CHANNEL_OPTIONS)

    def _listen(self) -> asyncio.Event:
        """Begin to obey; return an event of this loop that is set by ``stop``."""
        loop, asked_to_stop = asyncio.get_running_loop(), asyncio.Event()
        self._control.on("stop", lambda: _ring(loop, asked_to_stop))
        self._control.listen()
        return asked_to_stop


def _ring(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    loop.call_soon_threadsafe(event.set)
