"""One random fault after another strikes a server, its clients, their network and its disk (fault 46)."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
from google.protobuf.duration_pb2 import Duration

from stiqueue.v1 import queue_pb2 as pb

from .checker import Expectation, Result
from .disks import small_disk
from .processes import ClientProcess, wait_until
from .proxy import Direction, Mode, Proxy
from .run import Run

DISK_MEGABYTES = 64
GRACE_SECONDS = 2
"""How long consumers may settle what they hold when the server is told to stop."""
KEEPALIVE_SECONDS = 1
PROBE_BYTES = 1 << 20
ROOM_SECONDS = 20.0
"""How long it may take until a full disk shows, and until there is room again."""
SERVER_EXIT_SECONDS = 20.0
LOAD_SECONDS = 60.0
"""How long all clients may take to be at work."""


class Nemesis:
    """Strikes with one kind of fault after another, at random, each kind as often as the others.

    Each method of a fault returns when it is over: the server serves, the disk has room, the network passes bytes on.
    """

    def __init__(self, run: Run, proxy: Proxy, ballast: Path, hire: Callable[[], ClientProcess]) -> None:
        """Strike the first server of `run`, those whom `hire` starts, `proxy`, and the disk on which `ballast` lies."""
        self.struck: Counter[str] = Counter()
        """How often each kind of fault took effect."""
        self._run = run
        self._server = run.servers[0]
        self._proxy = proxy
        self._ballast = ballast
        self._hire = hire
        self._consumers: list[ClientProcess] = []
        self._kinds: list[Callable[[], None]] = [
            self.kill_server,
            self.stop_server,
            self.restart_server,
            self.kill_consumer,
            self.stop_consumer,
            self.drop,
            self.reset,
            self.delay,
            self.fill_disk,
        ]
        self._deck: list[Callable[[], None]] = []

    @property
    def kinds(self) -> int:
        """How many kinds of faults there are."""
        return len(self._kinds)

    def hire(self, count: int) -> None:
        """Start consumers to strike."""
        self._consumers += [self._hire() for _ in range(count)]

    def strike(self) -> None:
        """Strike once. Kinds come as from a deck of cards, so that none is left out."""
        if not self._deck:
            self._deck = self._run.random.sample(self._kinds, len(self._kinds))
        fault = self._deck.pop()
        fault()
        self.struck[fault.__name__] += 1

    def kill_server(self) -> None:
        """SIGKILL, and a start on the same file and port."""
        self._run.inject.kill(self._server)
        self._run.inject.restart(self._server)

    def stop_server(self) -> None:
        """SIGSTOP for 3 s: the network is as it was, and nobody answers."""
        self._run.inject.stop(self._server)
        time.sleep(3.0)
        self._run.inject.resume(self._server)

    def restart_server(self) -> None:
        """SIGTERM, a stop in good order, and a start."""
        self._run.inject.terminate(self._server)
        code = self._server.wait(SERVER_EXIT_SECONDS)
        assert code == 0, f"SIGTERM ended the server with {code}"
        self._run.inject.restart(self._server)

    def kill_consumer(self) -> None:
        """SIGKILL; another takes its place."""
        victim = self._run.random.choice(self._consumers)
        self._run.inject.kill(victim)
        self._consumers.remove(victim)
        self.hire(1)

    def stop_consumer(self) -> None:
        """SIGSTOP, mostly for so long that what it holds goes to others, and it wakes with leases of the past."""
        victim = self._run.random.choice(self._consumers)
        self._run.inject.stop(victim)
        time.sleep(self._run.random.uniform(1.0, 4.0))
        self._run.inject.resume(victim)

    def drop(self) -> None:
        """Bytes are lost in one direction or in both, and nobody is told."""
        directions = self._run.random.choice([[Direction.UP], [Direction.DOWN], list(Direction)])
        before = self._proxy.dropped
        self._run.inject.begins(self._proxy.name, "drop")
        self._proxy.set(Mode.DROP, *directions)
        wait_until(lambda: self._proxy.dropped > before, 30, "bytes were dropped")
        self._run.inject.took_effect(self._proxy.name, "drop")
        time.sleep(self._run.random.uniform(0.5, 3.0))
        self._proxy.heal()
        self._run.inject.healed(self._proxy.name)

    def reset(self) -> None:
        """Every connection through the proxy is reset."""
        wait_until(lambda: self._proxy.open > 0, 30, "connections to reset")
        self._run.inject.begins(self._proxy.name, "reset")
        assert self._proxy.reset() > 0
        self._run.inject.took_effect(self._proxy.name, "reset")
        self._run.inject.healed(self._proxy.name)

    def delay(self) -> None:
        """All bytes come 0.3 s later than they should."""
        passed = self._proxy.passed
        self._run.inject.begins(self._proxy.name, "delay")
        self._proxy.set(Mode.DELAY, delay=0.3)
        time.sleep(1.5)
        wait_until(lambda: self._proxy.passed > passed, 30, "bytes were delayed")
        self._run.inject.took_effect(self._proxy.name, "delay")
        self._proxy.set(Mode.PASS)
        self._run.inject.healed(self._proxy.name)

    def fill_disk(self) -> None:
        """Somebody else takes the rest of the disk for 2 s, after what room there is within the server's files."""
        self._run.inject.begins("disk", "full")
        try:
            with self._ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 16))
            wait_until(lambda: not self._has_room(), ROOM_SECONDS, "a message was refused")
            self._run.inject.took_effect("disk", "full")
            time.sleep(2.0)
        finally:
            self._ballast.unlink()
        for _ in self._run.stub().Deq(pb.DeqRequest(queue="probe", no_ack=True, wait=Duration()), timeout=ROOM_SECONDS):
            pass
        wait_until(self._has_room, ROOM_SECONDS, "a message was taken again")
        self._run.inject.healed("disk")

    def _has_room(self) -> bool:
        """Enqueue something large, beside the messages that are judged; return whether it was taken."""
        request = pb.EnqRequest(queue="probe", bodies=[bytes(PROBE_BYTES)])
        try:
            self._run.stub().Enq(request, timeout=ROOM_SECONDS, wait_for_ready=True)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            return False
        return True


def struggle(
    run: Run, seconds: float, producers: int, consumers: int, pause: tuple[float, float]
) -> tuple[Result, Counter[str]]:
    """Let clients work for so long while faults strike, the last tenth of it in quiet; drain; judge.

    Each kind of fault strikes once at least, however long that takes.

    Half of the clients go through a proxy; of each half, half are on the stub, half are `SQClient`s.

    Args:
        run: where all is started and recorded.
        seconds: how long.
        producers: processes that enqueue.
        consumers: processes that dequeue.
        pause: the least and the most seconds between one fault and the next.

    Returns:
        The verdict, and how often each kind of fault struck.
    """
    with small_disk(run.directory, DISK_MEGABYTES) as disk:
        server = run.server(
            *("--data", str(disk / "stiqueue.db"), "--grace", str(GRACE_SECONDS)),
            *("--keepalive", str(KEEPALIVE_SECONDS), "--keepalive-timeout", str(KEEPALIVE_SECONDS)),
        )
        with Proxy(server.target) as proxy:
            hired = 0

            def hire() -> ClientProcess:
                nonlocal hired
                hired += 1
                role, through = ("consume", "client")[hired // 2 % 2], hired % 2 == 0
                words = ["--prefetch", 10] if role == "consume" else []
                return run.client(
                    role,
                    f"c{hired}",
                    *words,
                    *(["--via", proxy.name] if through else []),
                    target=proxy.target if through else None,
                )

            nemesis = Nemesis(run, proxy, disk / "ballast", hire)
            nemesis.hire(consumers)
            senders = [
                run.client(
                    "produce",
                    f"p{n}",
                    *("--batch", 20, "--rate", 10, "--via", ("stub", "client")[n // 2 % 2]),
                    target=proxy.target if n % 2 else None,
                )
                for n in range(producers)
            ]
            for client in run.clients:
                client.wait_for("ready", LOAD_SECONDS)
            wait_until(lambda: run.counts().acked >= 100, LOAD_SECONDS, "load")
            ends = time.monotonic() + seconds
            while time.monotonic() < ends - seconds / 10 or len(nemesis.struck) < nemesis.kinds:
                time.sleep(run.random.uniform(*pause))
                nemesis.strike()
            time.sleep(max(0.0, ends - time.monotonic()))
            run.stop_clients(senders)
            run.stop_clients()
            run.drain(seconds=120)
            print(f"struck: {dict(nemesis.struck)}")
            assert not server.has_ended
            assert "Traceback" not in server.log
            server.end()
    return run.verdict(Expectation(confirmed=int(seconds * 30))), nemesis.struck
