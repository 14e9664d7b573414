"""Random histories of an engine, compared with a model after each step: order, counts, attempts, states, holders."""

from __future__ import annotations

import os
import random
import tempfile
from collections import Counter
from concurrent.futures import Future
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, assume, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.clock import FakeClock

from stiqueue.engines.bounds import Bounds
from stiqueue.engines.local.attempts import LOOK_SECONDS
from stiqueue.engines.local.change import LaneName
from stiqueue.engines.local.consumer import LocalConsumer
from stiqueue.engines.local.engine import LocalEngine
from stiqueue.engines.opening import open_engine
from stiqueue.engines.sqlite import space
from stiqueue.errors import LeaseStale, QueueFull
from stiqueue.message import Batch, Outcome, PeekQuery, Settlement, State, Subscription
from stiqueue.queue_settings import QueueSettings
from stiqueue.rules.entry import Peeked

from .desk import PATIENCE, as_killed
from .model import QUEUES, Model, Sent, Worker

MAX_MESSAGES = 15
MAX_WORKERS = 4
LIFE_STEPS = 6
"""After how many steps a server may be started again: some, so that there is something to lose."""
REMEMBERED = 300.0
"""Seconds; a request id that is older may be remembered or not."""

IN_MEMORY = Path("/dev/shm")
"""Where files are in memory on Linux: what is compared is the rules, and they are the same there in less time."""

PHASES = [Phase.generate, Phase.shrink]

ANY = st.integers(0, 2**16)
"""Which of those that there are."""
QUEUE = st.sampled_from(["q", "q", "q", "q.dead"])
SECONDS = st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.0, 5.0])

T = TypeVar("T")


def _answer(answer: T | Future[T]) -> T:
    return answer.result(PATIENCE) if isinstance(answer, Future) else answer


def _of(queue: str, seconds: float) -> float:
    """Return a duration that hardly ever ends at the moment at which one of the other queue does."""
    return seconds + 0.125 if queue == "q.dead" and seconds else seconds


class EngineMachine(RuleBasedStateMachine):
    """An engine in memory, and the model beside it."""

    durable = False

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.consumers: dict[Worker, LocalConsumer] = {}
        self.lease_ids: list[str] = []
        """All that were ever given to a consumer, also those settled long ago."""
        self.delivered: dict[str, tuple[str, int, int]] = {}
        """By lease id: which message it was (queue and id), and its how-manyth delivery."""
        self.bodies = 0
        self.steps = 0
        """How many since the last start."""

    @initialize(max_attempts=st.sampled_from([0, 1, 2, 3]))
    def start(self, max_attempts: int) -> None:
        self.bounds = Bounds(max_messages=MAX_MESSAGES)
        self.model = Model(self.clock.monotonic(), max_attempts, MAX_MESSAGES, self.durable)
        self.engine = self.open()

    def open(self) -> LocalEngine:
        return LocalEngine(self.bounds, self.model.max_attempts, self.clock)

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.engine.close_now()
        super().teardown()

    # -- what may happen ----------------------------------------------------------------------------------------------

    @rule(
        queue=QUEUE,
        number=st.integers(1, 3),
        priority=st.sampled_from([0, 0, 1, 9]),
        delay=SECONDS,
        ttl=st.sampled_from([None, None, None, 1.0, 8.0]),
        request=st.sampled_from(["none", "none", "new", "again"]),
        which=ANY,
        finished=st.sampled_from([0, 0, 1, 2]),
        key=st.sampled_from(["", "", "", "a", "a", "b"]),
        unique_key=st.sampled_from(["", "", "", "u", "v"]),
    )
    def enq(
        self,
        queue: str,
        number: int,
        priority: int,
        delay: float,
        ttl: float | None,
        request: str,
        which: int,
        finished: int,
        key: str,
        unique_key: str,
    ) -> None:
        number = 1 if unique_key else number
        known = [each for of, each in self.model.requests if of == queue]
        request_id = f"r{self.bodies}" if request == "new" else ""
        if request == "again" and known:
            request_id = known[which % len(known)]
        now, first = self.clock.monotonic(), self.model.last_id[queue] + 1
        bodies = [f"{self.bodies + each}".encode() for each in range(number)]
        self.bodies += number
        leases = self.pick(which, finished)
        due = now + _of(queue, delay) if delay else None
        expires = None if ttl is None else now + _of(queue, ttl)
        headers = {"number": str(number)} if number > 1 else {}
        new = [
            Sent(queue, first + at, body, priority, headers, now, due, expires, key=key, unique_key=unique_key)
            for at, body in enumerate(bodies)
        ]
        batch = Batch(
            queue,
            bodies,
            request_id,
            priority,
            _of(queue, delay),
            None if ttl is None else _of(queue, ttl),
            headers,
            leases,
            key,
            unique_key,
        )
        try:
            expected = self.model.enq(new, request_id, leases)
        except (LeaseStale, QueueFull) as error:
            with pytest.raises(type(error)):
                _answer(self.engine.submit(batch))
        else:
            receipt = _answer(self.engine.submit(batch))
            assert (receipt.first_id, receipt.count, receipt.duplicate) == expected

    @precondition(lambda self: len(self.consumers) < MAX_WORKERS)
    @rule(
        queue=QUEUE,
        prefetch=st.sampled_from([1, 1, 2, 3, 10]),
        ack_timeout=st.sampled_from([None, None, 2.0, 10.0]),
        concurrency=st.sampled_from([0, 1, 2]),
    )
    def subscribe(self, queue: str, prefetch: int, ack_timeout: float | None, concurrency: int) -> None:
        timeout = None if ack_timeout is None else _of(queue, ack_timeout)
        worker = Worker(queue, prefetch, timeout, concurrency=min(concurrency or prefetch, prefetch))
        self.model.workers.append(worker)
        asked = Subscription(
            queue,
            prefetch=prefetch,
            ack_timeout=timeout,
            consumer=f"{len(self.consumers)}",
            concurrency=concurrency,
        )
        self.consumers[worker] = self.engine.subscribe(asked, lambda: None)
        self.take(len(self.consumers) - 1)

    @precondition(lambda self: len(self.consumers) < MAX_WORKERS and self.model.messages)
    @rule(
        which=st.lists(ANY, min_size=1, max_size=3),
        prefetch=st.sampled_from([1, 2, 10]),
        ack_timeout=st.sampled_from([None, None, 2.0]),
    )
    def subscribe_exactly(self, which: list[int], prefetch: int, ack_timeout: float | None) -> None:
        """Ask for messages by their ids, leased ones and ids that no message has among them."""
        queue = QUEUES[which[0] % 5 == 0]
        here = [*sorted(each.id for each in self.model.messages if each.queue == queue), 10**6]
        ids = list(dict.fromkeys(here[each % len(here)] for each in which))
        timeout = None if ack_timeout is None else _of(queue, ack_timeout)
        worker = Worker(queue, prefetch, timeout, concurrency=prefetch, wanted=list(ids))
        self.model.workers.append(worker)
        asked = Subscription(queue, prefetch=prefetch, ack_timeout=timeout, ids=ids)
        self.consumers[worker] = consumer = self.engine.subscribe(asked, lambda: None)
        leased = {each.id for each in self.model.messages if each.queue == queue and each.holder}
        assert list(consumer.leased_ids) == [each for each in ids if each in leased]
        self.take(len(self.consumers) - 1)

    @rule(
        queue=QUEUE,
        paused=st.sampled_from([None, None, 2.0, 60.0]),
        max_leased=st.sampled_from([0, 0, 1, 3]),
        max_attempts=st.sampled_from([0, 1, 3]),
    )
    def configure(self, queue: str, paused: float | None, max_leased: int, max_attempts: int) -> None:
        seconds = None if paused is None else _of(queue, paused)
        until_then = None if seconds is None else self.clock.monotonic() + seconds
        self.model.configure(queue, until_then, max_leased, max_attempts)
        change = QueueSettings(queue, seconds is not None, seconds, max_attempts, max_leased=max_leased)
        _answer(self.engine.configure_now(change, []))

    @precondition(lambda self: self.consumers)
    @rule(which=ANY)
    def take(self, which: int) -> None:
        worker, consumer = self.worker(which)
        given = self.model.take(worker)
        taken = consumer.take()
        if not given and worker.has_ended():
            assert taken is None
            self.model.workers.remove(worker)
            del self.consumers[worker]
            return
        assert taken is not None
        assert [(lease.id, lease.body, lease.entry_after().attempt) for lease in taken] == [
            (each.id, each.body, each.attempt) for each in given
        ]
        self.lease_ids += [lease.lease_id for lease in taken]

    @precondition(lambda self: self.lease_ids)
    @rule(
        outcome=st.sampled_from(list(Outcome)),
        which=ANY,
        number=st.integers(1, 3),
        delay=st.sampled_from([0.0, 1.0, 6.0]),
        untouched=st.booleans(),
    )
    def settle(self, outcome: Outcome, which: int, number: int, delay: float, untouched: bool) -> None:
        leases = self.pick(which, number)
        held = self.model.held(leases)
        known = {each.lease_id for each in held}
        queue = held[0].queue if held else "q"
        if outcome is Outcome.EXTEND:
            delay = delay or 3.0
        elif outcome is not Outcome.REQUEUE:
            delay = 0.0
        untouched &= outcome is Outcome.REQUEUE
        late = [each for each in leases if each not in known]
        self.model.settle(held, outcome, _of(queue, delay), untouched, late)
        settlement = Settlement(leases, outcome, _of(queue, delay), untouched=untouched)
        stale = _answer(self.engine.settle_now(settlement))
        assert stale == [each for each in leases if each not in known]

    @precondition(lambda self: self.lease_ids)
    @rule(which=ANY)
    def exchange(self, which: int) -> None:
        leases = self.pick(which, 1)
        assume(leases)
        (lease_id,) = leases
        held = self.model.held(leases)
        worker = held[0].holder if held else None
        self.model.settle(held, Outcome.ACK, late=[] if held else leases)
        given = self.engine.exchange(lease_id)
        if worker is None:
            assert given is None
            return
        assert given is not None
        assert [(lease.id, lease.attempt) for lease in given] == [(each.id, each.attempt) for each in worker.inbox]
        worker.inbox = []
        self.lease_ids += [lease.lease_id for lease in given]

    @precondition(lambda self: any(consumer.held for consumer in self.consumers.values()))
    @rule(which=ANY)
    def leave(self, which: int) -> None:
        worker, consumer = self.worker(which)
        assume(consumer.held)
        leases = list(consumer.held)[:1]
        self.model.close(worker, untouched=True)
        assert _answer(self.engine.settle_now(Settlement(leases, Outcome.REQUEUE, 0.0, "", True, True))) == []
        assert consumer.take() is None
        del self.consumers[worker]

    @precondition(lambda self: self.consumers)
    @rule(which=ANY)
    def cancel(self, which: int) -> None:
        worker, consumer = self.worker(which)
        self.model.close(worker)
        consumer.close()
        del self.consumers[worker]

    @rule(seconds=st.sampled_from([1.0, 1.0, 3.0, 10.0]))
    def pass_time(self, seconds: float) -> None:
        until_then = self.clock.monotonic() + seconds
        while (now := self.clock.monotonic()) < until_then:
            dues = [self.model.next_due(queue) for queue in QUEUES]
            assume(dues[0] != dues[1] or min(dues) > until_then)  # which of two queues is first is nobody's business
            self.clock.advance(min(*dues, until_then) - now)
            self.model.tick(self.clock.monotonic())
            self.engine.tick()
            self.same()
        requests = self.model.requests
        self.model.requests = {each: seen for each, seen in requests.items() if now - seen[0] < REMEMBERED}

    # -- what is compared ---------------------------------------------------------------------------------------------

    @invariant()
    def same(self) -> None:
        self.settle_down()
        self.model.written()
        self.steps += 1
        now, wall_ms = self.clock.monotonic(), int(self.clock.wall() * 1000)
        for worker, consumer in self.consumers.items():
            leases = list(consumer.held.values())
            assert [(lease.id, lease.entry_after().attempt) for lease in leases] == [
                (each.id, each.attempt) for each in worker.held
            ]
            for lease, each in zip(leases, worker.held, strict=True):
                each.lease_id = lease.lease_id
                delivery = (each.queue, each.id, each.attempt)
                assert self.delivered.setdefault(lease.lease_id, delivery) == delivery, "a lease id was used again"
        for queue in QUEUES:
            ends = self.model.paused.get(queue)
            (counts,) = self.engine.counts_now([queue])
            assert (counts.paused, counts.paused_ms) == (ends is not None, round((ends - now) * 1000) if ends else 0)
            here = [each for each in self.model.messages if each.queue == queue]
            leased = sorted((each for each in here if each.holder), key=lambda each: each.id)
            delayed = [each for each in here if each.due is not None]
            ready = self.model.ready(queue)
            totals: Counter[str] = self.model.totals[queue]
            expected: dict[str, Any] = {
                "ready": len(ready),
                "leased": len(leased),
                "delayed": len(delayed),
                "blocked": len([each for each in ready if each.key in self.model.busy(queue)]),
                "consumers": len([each for each in self.consumers if each.queue == queue]),
                "bytes": sum(each.size for each in here),
                "oldest_lease_age_ms": int((now - min((each.since for each in leased), default=now)) * 1000),
                "enqueued": totals["enqueued"],
                "acked": totals["acked"],
                "requeued": totals["requeued"],
                "expired": totals["expired"],
                "dead_lettered": totals["dead_lettered"],
            }
            assert {name: getattr(counts, name) for name in expected} == expected
            assert (counts.oldest_ready_age_ms > 0) <= bool(ready)
            delayed.sort(key=lambda each: (each.due, each.id))
            assert [
                (peeked.state, peeked.entry.id, peeked.entry.body, peeked.entry.attempt, peeked.ready_time_ms)
                for peeked in self.peek(queue)
            ] == [
                (state, each.id, each.body, each.attempt, wall_ms + int((when - now) * 1000) if when else 0)
                for state, messages in ((State.LEASED, leased), (State.READY, ready), (State.DELAYED, delayed))
                for each in messages
                for when in [each.deadline or each.due]
            ]
            seen = {peeked.entry.id: (peeked.blocked, peeked.entry.properties) for peeked in self.peek(queue)}
            busy = self.model.busy(queue)
            assert {
                each: (blocked, dict(of.headers), of.key, of.unique_key) for each, (blocked, of) in seen.items()
            } == {
                each.id: (each in ready and each.key in busy, each.headers, each.key, each.unique_key) for each in here
            }

    def peek(self, queue: str) -> list[Peeked]:
        """Look at all messages of a queue."""
        chunks = islice(self.engine.peek_now(PeekQuery(queue, state=State.ALL)), 100)  # an end also for a wrong engine
        return [each for chunk in chunks for each in chunk]

    def settle_down(self) -> None:
        """Wait until nothing is under way."""

    def worker(self, which: int) -> tuple[Worker, LocalConsumer]:
        return list(self.consumers.items())[which % len(self.consumers)]

    def pick(self, which: int, number: int) -> list[str]:
        """Choose leases of one queue: mostly held ones, sometimes old ones, best of messages that are leased again."""
        queue = QUEUES[which % 7 == 0]
        leased = [each for each in self.model.messages if each.holder and each.queue == queue]
        held, ids = {each.lease_id for each in leased}, {each.id for each in leased}
        among = [each for each in self.lease_ids if each in held]
        if which % 5 == 0 or not among:
            old = [each for each in self.lease_ids if not self.model.held([each])]
            again = [each for each in old if self.delivered[each][0] == queue and self.delivered[each][1] in ids]
            among = again or old
        return list(dict.fromkeys(among[(which + at) % len(among)] for at in range(number if among else 0)))


class DurableMachine(EngineMachine):
    """An engine on a file, which may be killed and started again."""

    durable = True

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None)
        self.starts = 0

    def open(self) -> LocalEngine:
        self.path = Path(self.directory.name, f"{self.starts}.db")
        return self._started()

    def _started(self) -> LocalEngine:
        engine = open_engine(self.path, self.bounds, self.model.max_attempts, clock=self.clock, sync=False)
        engine.start_now()
        return engine

    @precondition(lambda self: self.steps >= LIFE_STEPS and any(each.holder for each in self.model.messages))
    @rule(killed=st.booleans(), moment=st.booleans())
    def restart(self, killed: bool, moment: bool) -> None:
        assert isinstance(self.engine, LocalEngine)
        self.pass_time(1.0 if moment else LOOK_SECONDS)
        self.settle_down()
        if killed:
            self.starts += 1
            copy: Future[Path] = Future()
            new = Path(self.directory.name, f"{self.starts}.db")
            # On the journal's thread, so that nothing is written meanwhile.
            self.engine._log.journal.load(
                LaneName("", 0), 0, 0, lambda rows: copy.set_result(as_killed(self.path, new))
            )
            self.path = copy.result(PATIENCE)
        self.engine.close_now()
        self.consumers.clear()
        self.steps = 0
        self.engine = self._started()
        known = self.model.last_id["q.dead"]
        self.model.restart(killed)
        self.settle_down()
        self.engine.tick()
        # In which order letters come of what was being delivered is left open.
        ids = {peeked.entry.body: peeked.entry.id for peeked in self.peek("q.dead")}
        for each in self.model.messages:
            if each.queue == "q.dead" and each.id > known:
                each.id = ids.get(each.body, 0)

    def settle_down(self) -> None:
        assert isinstance(self.engine, LocalEngine)
        for _ in range(3):  # what is done may ask for more: attempts to record, pages to read, dead letters
            self.engine.flush().result(PATIENCE)

    def teardown(self) -> None:
        super().teardown()
        self.directory.cleanup()


def _compare(machine: type[EngineMachine], examples: int) -> None:
    number = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(10**9))
    print(f"FAULT_SEED={number}")
    run_state_machine_as_test(
        seed(number)(machine),
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            database=None,
            phases=PHASES,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture(autouse=True)
def _no_time_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "RESERVE_BYTES", 4_096)


MACHINES = pytest.mark.parametrize("machine", [EngineMachine, DurableMachine], ids=["memory", "durable"])


@pytest.mark.slow
@pytest.mark.timeout(300)  # seconds; it takes 20, and longer to make a failure short
@MACHINES
def test_48_an_engine_does_what_the_model_does(machine: type[EngineMachine]) -> None:
    _compare(machine, 300)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
@MACHINES
def test_48_an_engine_does_what_the_model_does_in_thousands_of_histories(machine: type[EngineMachine]) -> None:
    _compare(machine, 5_000)
