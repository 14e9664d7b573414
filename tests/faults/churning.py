"""Consumers that come, take a few messages and leave in any way, many of them in one process, on asyncio."""

from __future__ import annotations

import argparse
import asyncio
import random

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration

from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1 import queue_pb2_grpc

from .control import Control
from .notebook import Held
from .recorder import Recorder
from .storming import CALL_SECONDS, AsyncStub, Crowd

CHANNELS = 2
MOST = 5
"""Messages that one of them takes at most before it leaves."""
WAIT_SECONDS = 1
"""How long one waits for a message before it leaves."""
DEAD = (grpc.StatusCode.CANCELLED, grpc.StatusCode.OK)


class Churn(Crowd):
    """Takes 1 to 5 messages with each stream; acknowledges them, gives them back, or leaves with them.

    All share two connections. Leaving by death is for the test: it kills this process.
    """

    def __init__(self, options: argparse.Namespace, control: Control, recorder: Recorder) -> None:
        """Remember what is asked for; nothing is opened."""
        super().__init__(options, control, recorder)
        self._done = 0

    async def run(self) -> None:
        """Come and go until the test says stop."""
        self._listen()
        channels = [self._channel() for _ in range(CHANNELS)]
        stubs = [queue_pb2_grpc.QueueServiceStub(channel) for channel in channels]
        self._control.report("ready")
        await asyncio.gather(*(self._come_and_go(n, stubs[n % CHANNELS]) for n in range(self._options.clients)))
        self._control.report("churned", self._done)
        for channel in channels:
            await channel.close()

    async def _come_and_go(self, number: int, stub: AsyncStub) -> None:
        rng = random.Random(f"{self._options.seed}-{number}")
        turn = 0
        while not self._control.stopped.is_set():
            turn += 1
            await self._take_some(stub, f"{self._options.name}-{number}.{turn}", rng)
            self._done += 1

    async def _take_some(self, stub: AsyncStub, stream: str, rng: random.Random) -> None:
        """Open one stream, take what comes first, and leave."""
        wait = Duration(seconds=WAIT_SECONDS)
        request = pb.DeqRequest(queue=self._options.queue, prefetch=rng.randint(1, MOST), wait=wait)
        self._notebook.opens(stream)
        call = stub.Deq(request, wait_for_ready=True)
        taken: list[Held] = []
        try:
            async for response in call:
                taken = self._notebook.receives(response.messages, stream)
                break
            way = rng.choice(("ack", "ack", "nack", "leave"))
            if taken and way != "leave":
                await self._say(stub, way, taken)
        except grpc.RpcError as error:
            if error.code() not in DEAD:
                self._control.report("failed", "Deq", error.code().name, error.details())
        self._notebook.ends(stream, "cancel")
        call.cancel()

    async def _say(self, stub: AsyncStub, way: str, held: list[Held]) -> None:
        if way == "ack":
            await self._ack(stub, held)
            return
        self._notebook.settles("nack", held, "invoke")
        request = pb.AckRequest(lease_ids=[each.lease for each in held], outcome=pb.OUTCOME_REQUEUE)
        answer = await stub.Ack(request, timeout=CALL_SECONDS)
        self._notebook.settles("nack", held, "ok", answer.stale_lease_ids)
