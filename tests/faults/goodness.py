"""A client that behaves well, while others do not: how long its calls take."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import TracebackType

import grpc

from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1 import queue_pb2_grpc

from .processes import ServerProcess, wait_until

BUSY_P99 = 0.25
"""A p99 below this is good whatever it was before: 50 ms, and room for a machine that does other work."""
SLOWER = 5
"""How much longer than on a server in peace a call may take where both are slow because the machine is busy."""
CALL_SECONDS = 5.0
PAUSE_SECONDS = 0.005


class GoodClient:
    """Makes one unary call after another in a thread of its own, on a connection of its own."""

    def __init__(self, target: str) -> None:
        """Aim at a server."""
        self.seconds: list[float] = []
        """How long each call took."""
        self.failures: list[str] = []
        self._target = target
        self._connected = threading.Event()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="good client", daemon=True)

    @property
    def p99(self) -> float:
        """The time that 1 of 100 calls exceeds, in seconds."""
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]

    def __enter__(self) -> GoodClient:
        """Return when it is connected."""
        self._thread.start()
        assert self._connected.wait(CALL_SECONDS), "no good client can connect"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        self._thread.join(CALL_SECONDS * 2)

    def _run(self) -> None:
        with grpc.insecure_channel(self._target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = queue_pb2_grpc.QueueServiceStub(channel)
            stub.Cnt(pb.CntRequest(queues=["good"]), timeout=CALL_SECONDS, wait_for_ready=True)
            self._connected.set()
            while not self._ends.wait(PAUSE_SECONDS):
                began = time.perf_counter()
                try:
                    stub.Cnt(pb.CntRequest(queues=["good"]), timeout=CALL_SECONDS)
                except grpc.RpcError as failure:
                    self.failures.append(str(failure))
                self.seconds.append(time.perf_counter() - began)


def usual_p99(target: str, seconds: float = 1.0) -> float:
    """Return the p99 of a good client that nobody disturbs."""
    with GoodClient(target) as good:
        time.sleep(seconds)
    return good.p99


def assert_undisturbed(good: GoodClient, elsewhere: GoodClient) -> None:
    """Check that no call failed, and that they were about as fast as those of another server in the same time."""
    print(
        f"good client: {len(good.seconds)} calls, p99 {good.p99 * 1000:.1f} ms, elsewhere {elsewhere.p99 * 1000:.1f} ms"
    )
    assert good.failures == []
    assert good.p99 <= max(BUSY_P99, SLOWER * elsewhere.p99)


def resident_bytes(pid: int) -> int:
    """Return how much memory a process uses."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    """Return how much time of the processors a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(pid: int) -> int:
    """Return how many file descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def wait_for_descriptors(server: ServerProcess, before: int, seconds: float = 10.0) -> None:
    """Wait until a server has no more descriptors than before, but for a few of other clients."""
    wait_until(lambda: descriptors(server.pid) <= before + 5, seconds, f"descriptors of {server.name}")


def lines_per_second(server: ServerProcess, lines_before: int, seconds: float) -> float:
    """Return how fast a server's log has grown since it had `lines_before` lines, `seconds` ago."""
    return (len(server.log.splitlines()) - lines_before) / max(1.0, seconds)
