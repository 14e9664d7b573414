"""The server dies, its disk fills up, or another one wants its file: faults 13, 15, 16, 21 and 24."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import grpc
import pytest
from engines.desk import ack, as_killed, enqueue, opened

from stiqueue import SQServer
from stiqueue.message import Subscription
from stiqueue.v1 import queue_pb2 as pb

from .checker import Verdict
from .disks import small_disk
from .killing import kill_again_and_again
from .notebook import Notebook
from .processes import ServerProcess, wait_until
from .recorder import Recorder, make_body
from .run import Run

SLOW_MACHINE = 15
"""How much longer than the pass figure something may take where other work takes the processor away."""


def test_13_server_sigkill_under_load(run: Run) -> None:
    """5 kills with 8 producers and 8 consumers: lost 0, invented 0, acked again 0, inversions 0.

    Each start serves within 2 s.
    """
    result, longest = kill_again_and_again(run, 5, 8, 8)
    assert result.verdict is Verdict.GOOD, result.summary()
    print(f"the longest start took {longest:.2f} s")
    assert longest <= 2 * SLOW_MACHINE


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_15_sigkill_during_the_start_of_a_large_file(run: Run) -> None:
    """200 MB: 20 starts are killed, evenly spread over the time that a start takes. The next one serves within 4 s."""
    path = run.directory / "stiqueue.db"
    with opened(path) as engine:
        for n in range(100):
            enqueue(engine, *(b"%d.%d" % (n, m) * 12_500 for m in range(40)))
        large = as_killed(path, run.directory / "large.db")
    path.unlink()
    assert large.stat().st_size + Path(f"{large}-wal").stat().st_size > 200e6
    server = run.server("--data", str(large), start=False)
    begin = time.monotonic()
    server.start()
    whole = time.monotonic() - begin
    run.inject.kill(server)
    for n in range(20):
        server.start(ready=False)
        time.sleep(whole * n / 20)
        run.inject.kill(server)
    begin = time.monotonic()
    run.inject.restart(server)
    took = time.monotonic() - begin
    print(f"a start took {whole:.2f} s, the one after 20 kills {took:.2f} s")
    assert took <= 4 * SLOW_MACHINE
    assert run.counts().ready == 4_000
    server.end()
    with opened(large) as engine:
        consumer = engine.subscribe(Subscription("default", prefetch=100, wait=0.0))
        number = 0
        while leases := consumer.take_waiting():
            for lease in leases:
                assert lease.body == b"%d.%d" % divmod(number, 40) * 12_500
                number += 1
            ack(engine, leases)
        assert number == 4_000


def test_16_server_sigkill_without_a_data_file(run: Run) -> None:
    """What is in memory is gone, as the server said at its start and with each message; no file is taken for it."""
    stale = run.directory / "stiqueue.db"
    with SQServer(port=0, data=str(stale)) as durable:
        run.stub(f"127.0.0.1:{durable.port}").Enq(pb.EnqRequest(bodies=[b"stale"]), timeout=10)
    before = stale.read_bytes()
    server = run.server()
    assert "in memory (lost when the process ends)" in server.log
    answer = run.stub().Enq(pb.EnqRequest(bodies=[b"a"]), timeout=10)
    assert answer.durability == pb.DURABILITY_MEMORY
    run.inject.kill(server)
    run.inject.restart(server)
    wait_until(lambda: run.counts().ready == 0, 30, "nothing there", every=0.05)
    assert list(run.stub().Deq(pb.DeqRequest(wait={}), timeout=10)) == []
    assert server.log.count("in memory (lost when the process ends)") == 2
    assert stale.read_bytes() == before


# -- a full disk --


class Filler:
    """Enqueues until the disk is full."""

    def __init__(self, run: Run, recorder: Recorder) -> None:
        self._run = run
        self._notebook = Notebook(recorder, "default")
        self._sent = 0
        self.confirmed = 0

    def send(self, batch: int = 10) -> bool:
        """Enqueue once; return whether there was room. Any other answer than that there is none is an error."""
        values = [f"fill-{n}" for n in range(self._sent + 1, self._sent + batch + 1)]
        self._sent += batch
        self._notebook.enqueues(values, "invoke")
        request = pb.EnqRequest(bodies=[make_body(value, 4_000) for value in values], request_id=values[0])
        try:
            self._run.stub().Enq(request, timeout=10)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED or "no room on the disk" not in error.details():
                raise
            self._notebook.enqueues(values, "fail")
            return False
        self._notebook.enqueues(values, "ok")
        self.confirmed += batch
        return True

    def fill(self) -> None:
        while self.send():
            pass
        while self.send(1):
            pass


def settle(run: Run, recorder: Recorder, number: int, stream: str) -> None:
    """Consume and acknowledge so many messages, 50 at a time. Each ack must be answered ok."""
    notebook = Notebook(recorder, "default")
    notebook.opens(stream)
    for response in run.stub().Deq(pb.DeqRequest(max_messages=number, prefetch=50), timeout=60):
        held = notebook.receives(response.messages, stream)
        notebook.settles("ack", held, "invoke")
        answer = run.stub().Ack(pb.AckRequest(lease_ids=[each.lease for each in held]), timeout=10)
        notebook.settles("ack", held, "ok", answer.stale_lease_ids)
        assert not answer.stale_lease_ids
    notebook.ends(stream, "OK")


def test_21_disk_full(run: Run) -> None:
    """16 MB are filled: new messages are refused, acks go on, and with room the server takes messages again."""
    with small_disk(run.directory, 16) as disk, Recorder(run.directory, "fill") as recorder:
        server = run.server("--data", str(disk / "stiqueue.db"))
        filler = Filler(run, recorder)
        run.inject.begins("disk", "full")
        filler.fill()
        run.inject.took_effect("disk", "full")
        print(f"{filler.confirmed} messages of 4,000 bytes fit")
        assert filler.confirmed > 1_000
        assert run.counts().ready == filler.confirmed

        settle(run, recorder, filler.confirmed // 2, "half")
        took = wait_until(filler.send, 2 * SLOW_MACHINE, "there is room again")
        print(f"new messages were taken {took:.2f} s after the acks")

        filler.fill()
        ready = run.counts().ready
        run.inject.kill(server)
        run.inject.restart(server)
        assert run.counts().ready == ready
        settle(run, recorder, ready // 4, "after the restart")

        # Somebody else takes the rest of the disk, and gives it back.
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        filler.fill()
        settle(run, recorder, run.counts().ready // 2, "beside the ballast")
        ballast.unlink()
        took = wait_until(filler.send, 2 * SLOW_MACHINE, "there is room again")
        print(f"new messages were taken {took:.2f} s after there was room")

        run.drain()
        run.inject.healed("disk")
        run.assert_good()
        assert "Traceback" not in server.log
        server.end()


def test_21_a_start_without_room(run: Run) -> None:
    """A file that cannot be made is told in one line; one that is there is served."""
    with small_disk(run.directory, 1) as disk:
        (disk / "ballast").write_bytes(bytes((1 << 20) - 3 * 4096))
        server = run.server("--data", str(disk / "stiqueue.db"), start=False).start(ready=False)
        assert server.wait(20) == 1
        assert server.log.count("\n") == 1, server.log
        assert "stiqueue.db: cannot be made: " in server.log


# -- two servers on one file --


def assert_refused(server: ServerProcess, holder: int) -> None:
    """Start a server on a file that is held: it ends within 1 s, naming the holder; nothing else happens."""
    begin = time.monotonic()
    server.start(ready=False)
    assert server.wait(20) == 1, server.log
    took = time.monotonic() - begin
    lines = server.log.strip().splitlines()
    assert len(lines) == 1, server.log
    assert lines[0].endswith(f"in use by process {holder}"), server.log
    print(f"refused after {took:.2f} s")
    assert took <= 1 * SLOW_MACHINE


@pytest.mark.parametrize("way", ["real/stiqueue.db", "link/stiqueue.db", "name.db", "real/../link/stiqueue.db"])
@pytest.mark.parametrize("stopped", [False, True], ids=["", "stopped"])
def test_24_two_servers_on_one_file(run: Run, way: str, stopped: bool) -> None:
    """Whatever the second calls the file, and also while the first is stopped, which does not notice."""
    real = run.directory / "real"
    real.mkdir()
    (run.directory / "link").symlink_to("real")
    (run.directory / "name.db").symlink_to("real/stiqueue.db")
    first = run.server("--data", str(real / "stiqueue.db"))
    run.stub().Enq(pb.EnqRequest(bodies=[b"a"]), timeout=10)
    second = run.server("--data", way, start=False)
    if stopped:
        run.inject.stop(first)
    assert_refused(second, first.pid)
    if stopped:
        run.inject.resume(first)
    assert next(iter(run.stub().Deq(pb.DeqRequest(max_messages=1, no_ack=True), timeout=20))).messages[0].body == b"a"
    if way == "real/stiqueue.db" and not stopped:  # after a kill of the first the next one has the file at once
        run.stub().Enq(pb.EnqRequest(bodies=[b"b"]), timeout=10)
        run.inject.kill(first)
        second.start()
        counts = run.stub(second.target).Cnt(pb.CntRequest(queues=["default"]), timeout=5).queues[0]
        assert counts.ready == 1


def test_24_after_other_code_in_the_server_had_the_file_open(run: Run) -> None:
    """A backup or a checksum of the file, and its close drops all of SQLite's locks: the second is refused still."""
    data = run.directory / "stiqueue.db"
    with SQServer(port=0, data=str(data)) as server:
        for _ in range(3):
            data.read_bytes()
            os.close(os.open(data, os.O_RDWR))
        assert_refused(run.server("--data", str(data), start=False), os.getpid())
        stub = run.stub(f"127.0.0.1:{server.port}")
        assert stub.Enq(pb.EnqRequest(bodies=[b"a"]), timeout=10).durability == pb.DURABILITY_DISK
