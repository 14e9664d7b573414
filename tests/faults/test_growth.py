"""The data file and the memory under a long load, and after a peak: faults 28 and 29."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from .goodness import resident_bytes
from .loading import Load, drain_many, enqueue_many
from .run import Run

MIB = 1 << 20
WAL_BYTES = 16 * MIB
RATE = 5_000
LOOKS = 50
BATCH = 50
CALM_RATE = 20
"""What a server beside the loaded one has to do: it tells how the machine is doing."""
BODY_BYTES = 100
LONG_SECONDS = 240
START_SECONDS = 10.0
SMALL_BYTES = 8 * MIB
"""A file of so many bytes is small, however few messages are in it: 4 MB are kept for the next ones."""
MEMORY_BYTES = 50 * MIB
"""What docs/operations.md says that a server with a data file takes, beyond what it had when it was empty."""


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def load(run: Run, data: Path, seconds: int) -> None:
    """Load a server for so long; look at its files all the time, and at its commits at the beginning and at the end."""
    server = run.server(environment={"STIQUEUE_DATA": str(data)})
    calm = run.server(environment={"STIQUEUE_DATA": str(data.with_name("calm.db"))})
    part = min(60.0, seconds / 4)
    largest_wal = largest_file = most_live = 0
    with Load(server.target, RATE, BATCH, LOOKS) as under_way, Load(calm.target, CALM_RATE, 1, 1) as beside:
        end = time.monotonic() + seconds
        while time.monotonic() < end and not under_way.failures:
            largest_wal = max(largest_wal, size(Path(f"{data}-wal")))
            largest_file = max(largest_file, size(data))
            most_live = max(most_live, run.counts().bytes)
            time.sleep(0.1)
    early, late = under_way.p99(part, 2 * part), under_way.p99(seconds - part, seconds)
    machine = beside.p99(seconds - part, seconds) / beside.p99(part, 2 * part)  # by how much all has become slower
    print(
        f"{under_way.confirmed:,} confirmed in {seconds} s, {under_way.looked:,} looks; log {largest_wal:,} bytes, "
        f"file {largest_file:,}, live {most_live:,}; p99 of a commit {early * 1000:.1f} ms, "
        f"at the end {late * 1000:.1f} ms, {machine:.1f} times as long on a server without load; "
        f"memory {resident_bytes(server.pid) / MIB:.0f} MiB"
    )
    assert under_way.failures == []
    assert under_way.acked == under_way.confirmed
    assert under_way.confirmed >= RATE * seconds / 20, "hardly any load"
    assert under_way.looked >= LOOKS * seconds / 20, "hardly any looks"
    assert largest_wal <= WAL_BYTES
    assert largest_file <= max(2 * most_live, SMALL_BYTES)
    if seconds >= LONG_SECONDS:  # in less time there is nothing but chance
        assert late <= max(1.5 * early * max(1.0, machine), 0.1)
    counts = run.counts()
    assert (counts.ready, counts.leased, counts.acked) == (0, 0, under_way.confirmed)


@pytest.mark.slow
def test_28_the_log_stays_small(run: Run, tmp_path: Path) -> None:
    """5,000 messages a second pass through, 50 peeks and counts a second look on: the log stays below 16 MB.

    The file stays small, for what is in it is little.
    """
    load(run, tmp_path / "stiqueue.db", 6)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_28_the_log_stays_small_for_10_minutes(run: Run, tmp_path: Path) -> None:
    """The same for 10 minutes; commits take as long in the last as in the second of them."""
    load(run, tmp_path / "stiqueue.db", 600)


def peak_and_drain(run: Run, data: Path, number: int, cycles: int) -> None:
    """Fill a server, start it anew on what it has, and drain it, again and again."""
    begin = time.monotonic()
    server = run.server(environment={"STIQUEUE_DATA": str(data)})
    usual_start = time.monotonic() - begin  # with nothing to read
    empty = resident_bytes(server.pid)
    peaks: list[int] = []
    for cycle in range(cycles):
        begin = time.monotonic()
        enqueue_many(run.stub(), number)
        filled = time.monotonic() - begin
        assert run.counts().ready == number
        memory = resident_bytes(server.pid)
        run.inject.kill(server)
        begin = time.monotonic()
        run.inject.restart(server)
        start = time.monotonic() - begin
        run.hang_up(server.target)
        peaks.append(size(data) + size(Path(f"{data}-wal")))
        assert run.counts().ready == number
        restarted = resident_bytes(server.pid)
        begin = time.monotonic()
        assert drain_many(run.stub(), number) == 0
        print(
            f"cycle {cycle + 1}: filled in {filled:.1f} s, file and log {peaks[-1]:,} bytes, memory {memory / MIB:.0f} "
            f"MiB; started in {start:.2f} s with {restarted / MIB:.0f} MiB; drained in {time.monotonic() - begin:.1f} s"
        )
        counts = run.counts()
        assert (counts.ready, counts.leased) == (0, 0)
        assert start <= START_SECONDS + 5 * usual_start
        assert max(memory, restarted) - empty <= MEMORY_BYTES
    assert max(peaks) <= 1.2 * peaks[0]


@pytest.mark.slow
def test_29_a_backlog_is_drained_again_and_again(run: Run, tmp_path: Path) -> None:
    """40,000 messages, three times: the file is no larger the third time, and hardly anything is in memory.

    The server is killed at each peak, and starts on all that is there.
    """
    peak_and_drain(run, tmp_path / "stiqueue.db", 40_000, 3)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_29_a_backlog_of_a_million_is_drained_again_and_again(run: Run, tmp_path: Path) -> None:
    """The same with 1,000,000: it starts within 10 s."""
    peak_and_drain(run, tmp_path / "stiqueue.db", 1_000_000, 3)
