"""One run: a server, its clients, the faults, the drain and the verdict."""

from __future__ import annotations

import dataclasses
import os
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import grpc
from google.protobuf.duration_pb2 import Duration

from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1 import queue_pb2_grpc

from .checker import Expectation, Result, Verdict, check
from .injector import Injector
from .notebook import CHANNEL_OPTIONS, Held, Notebook
from .processes import ClientProcess, ServerProcess, wait_until
from .recorder import Recorder, make_body, read_history

QUIET_SECONDS = 2
"""A server is drained when its counts are 0 and a read returns nothing for so long."""
DRAIN_SECONDS = 60.0
DRAIN_PREFETCH = 1_000
FILL_BATCH = 1_000


class Run:
    """Everything that one test starts; ends it all when the test ends, however it ends.

    Random choices come from `random`, whose seed is printed; ``FAULT_SEED`` in the environment repeats a run.
    """

    def __init__(self, directory: Path) -> None:
        """Record in `directory`."""
        self.directory = directory
        self.seed = os.environ.get("FAULT_SEED") or str(random.SystemRandom().randrange(10**9))
        self.random = random.Random(self.seed)
        self.recorder = Recorder(directory, "run")
        self.inject = Injector(self.recorder)
        self.servers: list[ServerProcess] = []
        self.clients: list[ClientProcess] = []
        self._channels: dict[str, grpc.Channel] = {}
        self._reads = 0
        print(f"FAULT_SEED={self.seed}")

    def server(
        self, *options: str, host: str = "127.0.0.1", environment: Mapping[str, str] | None = None, start: bool = True
    ) -> ServerProcess:
        """Make a server and start it, unless told not to; the first is named ``server``, the next ``server-2``."""
        name = f"server-{len(self.servers) + 1}" if self.servers else "server"
        server = ServerProcess(self.directory, options, host=host, name=name, environment=environment)
        self.servers.append(server)
        return server.start() if start else server

    def client(
        self, role: str, name: str, *options: object, target: str | None = None, prefix: Sequence[str] = ()
    ) -> ClientProcess:
        """Start a client process of the first server, or of `target`; `prefix` is put before its command."""
        words = ["--seed", f"{self.seed}-{name}", *map(str, options)]
        client = ClientProcess(self.directory, role, name, target or self.servers[0].target, words, prefix)
        self.clients.append(client)
        return client

    def stub(self, target: str | None = None) -> queue_pb2_grpc.QueueServiceStub:
        """Return a stub of the first server or of `target`; the channel is kept."""
        target = target or self.servers[0].target
        if target not in self._channels:
            self._channels[target] = grpc.insecure_channel(target, CHANNEL_OPTIONS)
        return queue_pb2_grpc.QueueServiceStub(self._channels[target])

    def hang_up(self, target: str) -> None:
        """Close the kept channel to `target`: the next stub connects anew."""
        self._channels.pop(target).close()

    def counts(self, queue: str = "default") -> pb.QueueCounts:
        """Return the server's own counts of one queue."""
        request = pb.CntRequest(queues=[queue])
        try:
            return self.stub().Cnt(request, timeout=5).queues[0]
        except grpc.RpcError as error:
            # gRPC 1.71 answers no ping between calls, so the server may have closed a connection that was idle.
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return self.stub().Cnt(request, timeout=5).queues[0]

    def wait_for_counts(self, seconds: float, queue: str = "default", **expected: int) -> float:
        """Wait until counts are as `expected`; return how long it took, in seconds."""

        def as_expected() -> bool:
            counts = self.counts(queue)
            return all(getattr(counts, name) == number for name, number in expected.items())

        try:
            return wait_until(as_expected, seconds, f"{expected}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; the counts are {self.counts(queue)}") from None

    def fill(self, count: int, *, name: str = "fill", queue: str = "default", size: int = 0) -> list[str]:
        """Enqueue `count` numbered messages in large batches; return their values."""
        values = [f"{name}-{n}" for n in range(1, count + 1)]
        with Recorder(self.directory, name) as recorder:
            notebook = Notebook(recorder, queue)
            for begin in range(0, count, FILL_BATCH):
                batch = values[begin : begin + FILL_BATCH]
                notebook.enqueues(batch, "invoke")
                request = pb.EnqRequest(queue=queue, bodies=[make_body(value, size) for value in batch])
                request.request_id = batch[0]
                self.stub().Enq(request, timeout=30, wait_for_ready=True)
                notebook.enqueues(batch, "ok")
        return values

    def drain(self, queue: str = "default", seconds: float = DRAIN_SECONDS) -> list[str]:
        """Consume until the server is empty: fresh consumers, until nothing comes for 2 s and all counts are 0.

        Return the values that came, in order. A drain that does not end in time makes the verdict UNKNOWN.
        """
        give_up = time.monotonic() + seconds
        drained: list[str] = []
        empty = False
        with Recorder(self.directory, f"drain-{queue}") as recorder:
            while not empty and time.monotonic() < give_up:
                held = self._read(Notebook(recorder, queue), QUIET_SECONDS, give_up - time.monotonic())
                drained += [each.value for each in held]
                counts = self.counts(queue)
                empty = not (counts.ready or counts.leased or counts.delayed)
            recorder.write("drain", queue, "ok" if empty else "fail")
        return drained

    def take_ready(self, queue: str = "default", seconds: float = DRAIN_SECONDS) -> list[Held]:
        """Consume what is ready now with one fresh consumer; return it in the order in which it came."""
        with Recorder(self.directory, f"take-{queue}") as recorder:
            return self._read(Notebook(recorder, queue), 0, seconds)

    def _read(self, notebook: Notebook, quiet_seconds: int, seconds: float) -> list[Held]:
        """Consume and acknowledge with a new stream until nothing comes for `quiet_seconds`."""
        self._reads += 1
        stream, taken = f"read-{self._reads}", list[Held]()
        notebook.opens(stream)
        request = pb.DeqRequest(queue=notebook.queue, prefetch=DRAIN_PREFETCH, consumer="reader")
        request.wait.CopyFrom(Duration(seconds=quiet_seconds))
        quiet_since = time.monotonic()
        how = "OK"
        try:
            for response in self.stub().Deq(request, timeout=seconds, wait_for_ready=True):
                held = notebook.receives(response.messages, stream)
                notebook.settles("ack", held, "invoke")
                quiet_since = time.monotonic()  # the server cannot be idle before it has this ack
                answer = self.stub().Ack(pb.AckRequest(lease_ids=[each.lease for each in held]), timeout=10)
                notebook.settles("ack", held, "ok", answer.stale_lease_ids)
                taken += held
            quiet = time.monotonic() - quiet_since
            assert quiet > quiet_seconds - 0.01, f"the stream ended after only {quiet:.3f} s without messages"
        except grpc.RpcError as error:
            how = error.code().name
        notebook.ends(stream, how)
        return taken

    def verdict(self, expectation: Expectation | None = None) -> Result:
        """Judge all that was recorded, and print the summary."""
        result = check(read_history(self.directory), expectation)
        print(result.summary())
        return result

    def assert_no_errors(self, expectation: Expectation) -> Result:
        """Judge all that was recorded; fail when anything is wrong, or in doubt for another reason than the drain."""
        return self.assert_good(dataclasses.replace(expectation, drained=False))

    def assert_good(self, expectation: Expectation | None = None) -> Result:
        """Judge all that was recorded; fail unless it is good."""
        result = self.verdict(expectation)
        assert result.verdict is Verdict.GOOD, result.summary()
        return result

    def stop_clients(self, clients: Sequence[ClientProcess] | None = None) -> None:
        """End clients in good order (default: all that live)."""
        for client in self.clients if clients is None else clients:
            if client.process.poll() is None:
                client.stop()

    def __enter__(self) -> Run:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process, and show the servers' logs when the test failed."""
        for channel in self._channels.values():
            channel.close()
        for client in self.clients:
            client.end()
        for server in self.servers:
            server.end()
        self.recorder.close()
        for client in self.clients:
            failed = [report for report in client.reports if report.startswith("failed")]
            print("\n".join(f"{client.name}: {report}" for report in failed[:10]), end="\n" * bool(failed))
        for server in self.servers:
            print(f"--- {server.name}\n{server.log[-4000:]}")
