"""The rules of a queue in the fewest words: lists that are searched, no thread, no heap, no file. Time stands still
between two calls of `tick`, and everything that is due is done by then.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stiqueue.errors import LeaseStale, QueueFull
from stiqueue.message import Outcome

QUEUES = ("q", "q.dead")
YOUNG = 0.5
"""For how many seconds a crash of the server may forget that a message was delivered."""


@dataclass(eq=False)
class Sent:
    """A message."""

    queue: str
    id: int
    body: bytes
    priority: int
    headers: Mapping[str, str]
    since: float
    """When it was enqueued, and while it is leased: when that began."""
    due: float | None = None
    expires: float | None = None
    attempt: int = 0
    holder: Worker | None = None
    lease_id: str = ""
    deadline: float | None = None
    key: str = ""
    unique_key: str = ""
    holds: bool = False
    """Whether it waits, was given back and holds up its key."""
    recorded: bool = False
    """Whether a crash of the server does not forget its latest attempt."""
    was_due: float | None = None
    """When it was due before it was leased by its id."""

    @property
    def size(self) -> int:
        return len(self.body) + sum(len(key) + len(value) for key, value in self.headers.items())


@dataclass(eq=False)
class Worker:
    """A consumer."""

    queue: str
    prefetch: int
    ack_timeout: float | None
    held: list[Sent] = field(default_factory=list)
    inbox: list[Sent] = field(default_factory=list)
    """What it was given while it waited, and has not seen yet."""
    concurrency: int = 10_000
    """How many messages it works on at a time."""
    late: dict[str, bool] = field(default_factory=dict)
    """Its leases that ran out since it last settled one in time, and whether it had begun their messages."""
    wanted: list[int] | None = None
    """If it asked for messages by their ids: those that it still asks for."""
    trial: str = ""
    """Whether it may have a message on trial ("open"), for it has settled one of them late, or has had it ("had")."""

    def places(self) -> int:
        """How many messages it can work on beside those whose leases ran out."""
        return max(0, self.concurrency - sum(self.late.values()))

    def has_ended(self) -> bool:
        return self.wanted == [] and not self.held

    def begun(self) -> list[Sent]:
        if self.wanted is not None:
            return []
        return [each for each in self.held[: self.places()] if each not in self.inbox]

    def room(self) -> int:
        if self.trial and self.late:
            return int(self.trial == "open" and not self.held)
        if self.late and not self.places():
            return 0
        return self.prefetch - len(self.held) - len(self.late)


class Model:
    """A queue, and the queue of its dead letters."""

    def __init__(self, now: float, max_attempts: int, max_messages: int, writes: bool) -> None:
        self.now, self.max_attempts, self.max_messages = now, max_attempts, max_messages
        self.writes = writes
        """Whether what is new can be delivered only when it is written: after all that could be before."""
        self.messages: list[Sent] = []
        self.workers: list[Worker] = []
        self.line: list[Worker] = []
        """Those who wait for messages, for the longest time first."""
        self.last_id: Counter[str] = Counter()
        self.totals: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.requests: dict[tuple[str, str], tuple[float, int, int]] = {}
        self.letters: list[tuple[Sent, str]] = []
        self.paused: dict[str, float] = {}
        """Queues that are paused, and until when."""
        self.max_leased: dict[str, int] = {}
        self.leaving: set[tuple[str, str]] = set()
        """(queue, key) of messages that are done or dead and still hold up their key, until that is written."""

    def ready(self, queue: str) -> list[Sent]:
        found = [each for each in self.messages if each.queue == queue and not each.holder and each.due is None]
        return sorted(found, key=lambda each: (-each.priority, each.id))

    def busy(self, queue: str) -> set[str]:
        busy = {each.key for each in self.messages if each.queue == queue and (each.holder or each.holds)}
        return (busy | {key for of, key in self.leaving if of == queue}) - {""}

    def free(self, queue: str) -> list[Sent]:
        busy = self.busy(queue)
        return [each for each in self.ready(queue) if each.key not in busy]

    def enq(self, new: Sequence[Sent], request_id: str, finished: Sequence[str]) -> tuple[int, int, bool]:
        queue = new[0].queue
        done = self.held(finished)
        if (queue, request_id) in self.requests:
            if done:
                self.settle(done, Outcome.ACK)
                self.written()
            return (*self.requests[queue, request_id][1:], True)
        if len(done) < len(finished):
            raise LeaseStale("")
        others = [each for each in self.messages if each.queue == queue and each not in done]
        same = [each.id for each in others if each.unique_key and each.unique_key == new[0].unique_key]
        if same:
            if request_id:
                self.requests[queue, request_id] = (self.now, same[0], 1)
            self.settle(done, Outcome.ACK)
            self.written()
            return same[0], 1, True
        freed = [each for each in done if each.queue == queue]
        if len(new) > len(freed) and len(others) + len(new) > self.max_messages:
            raise QueueFull("")
        first = self.last_id[queue] + 1
        if request_id:
            self.requests[queue, request_id] = (self.now, first, len(new))
        if not self.writes:
            self._add(new)
        self.settle(done, Outcome.ACK)
        if self.writes:
            self._add(new)
        self.leaving.clear()
        for each in dict.fromkeys((queue, *QUEUES)):
            self._hand_over(each)
        return first, len(new), False

    def take(self, worker: Worker) -> list[Sent]:
        given, worker.inbox = worker.inbox, []
        if not given:
            if worker in self.line:
                self.line.remove(worker)
            given = self._lease(worker)
            if not given and worker.room() > 0 and worker.wanted is None:
                self.line.append(worker)
        return given

    def vacant(self, queue: str) -> int:
        """How many more may be leased by those who take what comes."""
        if queue in self.paused:
            return 0
        leased = len([each for each in self.messages if each.queue == queue and each.holder])
        return max(0, (self.max_leased.get(queue) or 10_000) - leased)

    def configure(self, queue: str, paused: float | None, max_leased: int, max_attempts: int) -> None:
        """Pause a queue until then, or not, and set its limits."""
        self.paused.pop(queue, None)
        if paused is not None:
            self.paused[queue] = paused
        self.max_leased[queue] = max_leased
        if queue == "q":
            self.max_attempts = max_attempts
            here = [each for each in self.messages if each.queue == "q" and not each.holder]
            for each in sorted(here, key=lambda each: each.id):
                if 0 < max_attempts <= each.attempt:
                    self._end(each, "dead_lettered", "max-attempts")
        self._after(queue)

    def held(self, lease_ids: Sequence[str]) -> list[Sent]:
        by_lease = {each.lease_id: each for each in self.messages if each.holder}
        return [by_lease[each] for each in lease_ids if each in by_lease]

    def settle_late(self, lease_ids: Sequence[str]) -> set[str]:
        """Hear of leases that are no longer held; return the queues of those that have just run out."""
        workers = [worker for each in lease_ids for worker in self.workers if each in worker.late]
        for each in lease_ids:
            for worker in workers:
                if each in worker.late:
                    worker.late[each], worker.trial = False, "open"
        for worker in dict.fromkeys(workers):
            self._free(worker)
        return {worker.queue for worker in workers}

    def settle(
        self,
        leased: list[Sent],
        outcome: Outcome,
        delay: float = 0.0,
        untouched: bool = False,
        late: Sequence[str] = (),
    ) -> None:
        queues = self.settle_late(late) if outcome is not Outcome.EXTEND else set()
        workers = [each.holder for each in leased]
        for each in sorted(leased, key=lambda each: workers.index(each.holder)):  # one consumer's after another's
            worker = each.holder
            assert worker is not None
            if outcome is not Outcome.EXTEND:
                worker.late, worker.trial = {}, ""
            if outcome is Outcome.EXTEND:
                each.deadline = self.now + delay
            elif outcome is Outcome.ACK:
                self._end(each, "acked")
            elif outcome is Outcome.DEAD_LETTER:
                self._end(each, "dead_lettered", "rejected")
            else:
                self._give_back(each, self.now + delay if delay else None, not untouched)
            self._free(worker)
        for queue in queues | {each.queue for each in leased}:
            self._after(queue)

    def written(self) -> None:
        """What was settled is written, and keys are free."""
        self.leaving.clear()
        for queue in QUEUES:
            self._hand_over(queue)

    def close(self, worker: Worker, untouched: bool = False) -> None:
        self.workers.remove(worker)
        if worker in self.line:
            self.line.remove(worker)
        begun = worker.begun()
        for each in list(worker.held):
            self._give_back(each, each.was_due, counts=each in begun and not untouched)
        self._after(worker.queue)

    def next_due(self, queue: str) -> float:
        here = [each for each in self.messages if each.queue == queue]
        times = [when for each in here for when in (not each.holder and each.expires, each.due, each.deadline) if when]
        times.append(self.paused.get(queue, float("inf")))
        return min(times, default=float("inf"))

    def tick(self, now: float) -> None:
        self.now = now
        for queue in QUEUES:
            if self.paused.get(queue, float("inf")) <= now:
                del self.paused[queue]
            here = [each for each in self.messages if each.queue == queue]
            for each in here:
                if each.expires and each.expires <= now and not each.holder:
                    self._end(each, "expired")
                if each.due and each.due <= now:
                    each.due, each.holds = None, False
            late = [each for each in here if each.deadline and each.deadline <= now]
            late.sort(key=lambda each: each.id)
            holders = {each.holder: None for each in late if each.holder}
            begun = [each for worker in holders for each in worker.begun()]
            for each in late:
                worker, has_begun = each.holder, each in begun
                assert worker is not None
                if each in worker.inbox:
                    worker.trial = worker.trial and "open"
                else:
                    worker.late[each.lease_id] = has_begun
                self._give_back(each, each.was_due, counts=has_begun)
            for worker in holders:
                self._free(worker)
            self._after(queue)

    def restart(self, killed: bool) -> None:
        """Begin anew with what the file has; totals do not survive, nor do the youngest deliveries a crash."""
        self.line.clear()
        for worker in list(self.workers) * (not killed):
            self.close(worker)
        self.workers.clear()
        self.totals.clear()
        for each in sorted((each for each in self.messages if each.holder), key=lambda each: (-each.priority, each.id)):
            assert each.holder is not None
            each.recorded = self.now - each.since >= YOUNG and each in each.holder.held[: each.holder.places()]
        for each in sorted((each for each in self.messages if each.holder), key=lambda each: (-each.priority, each.id)):
            self._give_back(each, each.was_due, counts=each.recorded)
        self._after("q")
        for totals in self.totals.values():
            totals["requeued"] = 0

    # -- what happens in there ----------------------------------------------------------------------------------------

    def _add(self, new: Sequence[Sent]) -> None:
        self.messages += new
        self.totals[new[0].queue]["enqueued"] += len(new)
        self.last_id[new[0].queue] = new[-1].id

    def _lease(self, worker: Worker) -> list[Sent]:
        if worker.wanted is not None:
            return self._lease_exactly(worker, worker.wanted)
        given: list[Sent] = []
        room = min(worker.room(), self.vacant(worker.queue))
        while len(given) < room and (free := self.free(worker.queue)):
            given.append(free[0])
            free[0].holder, free[0].attempt = worker, free[0].attempt + 1
        return self._give(worker, given)

    def _lease_exactly(self, worker: Worker, wanted: list[int]) -> list[Sent]:
        """Those that `worker` asked for, ready or delayed, in that order; no such delivery is an attempt."""
        given: list[Sent] = []
        while wanted and len(given) < worker.room():
            message_id = wanted.pop(0)
            here = [each for each in self.messages if each.queue == worker.queue and not each.holder]
            given += [each for each in here if each.id == message_id]
        for each in given:
            each.due, each.was_due, each.holds = None, each.due, False
        return self._give(worker, given)

    def _give(self, worker: Worker, given: list[Sent]) -> list[Sent]:
        for each in given:
            each.holder, each.since = worker, self.now
            each.deadline = self.now + worker.ack_timeout if worker.ack_timeout else None
        worker.held += given
        if given and worker.trial:
            worker.trial = "had"
        return given

    def _let_go(self, leased: Sent) -> None:
        if leased.holder:
            for having in (leased.holder.held, leased.holder.inbox):
                if leased in having:
                    having.remove(leased)
        leased.holder, leased.deadline, leased.lease_id = None, None, ""

    def _give_back(self, leased: Sent, due: float | None = None, counts: bool = True) -> None:
        assert leased.holder is not None
        is_exact = leased.holder.wanted is not None
        leased.attempt -= not counts and not is_exact
        self._let_go(leased)
        self.totals[leased.queue]["requeued"] += 1
        if leased.expires and leased.expires <= self.now:
            self._end(leased, "expired")
        elif leased.queue == "q" and 0 < self.max_attempts <= leased.attempt:
            self._end(leased, "dead_lettered", "max-attempts")
        leased.due, leased.was_due = None if due is None or due <= self.now else due, None
        leased.holds = leased.due is not None and (not is_exact or leased.attempt > 0)

    def _end(self, message: Sent, how: str, reason: str = "") -> None:
        self._let_go(message)
        self.messages.remove(message)
        self.totals[message.queue][how] += 1
        if reason:
            self.letters.append((message, reason))
        if self.writes and how != "expired":
            self.leaving.add((message.queue, message.key))

    def _free(self, worker: Worker) -> None:
        if not worker.inbox and worker.room() > 0 and worker not in self.line and worker.wanted is None:
            self.line.append(worker)

    def _after(self, queue: str) -> None:
        if self.writes:
            self._hand_over(queue)
        for old, reason in self.letters:
            why = {"stiqueue-dead-queue": old.queue, "stiqueue-dead-attempts": str(old.attempt)}
            headers = {**why, **old.headers, "stiqueue-dead-reason": reason}
            new_id = self.last_id["q.dead"] + 1
            self._add([Sent("q.dead", new_id, old.body, old.priority, headers, self.now, key=old.key)])
        if self.letters:
            self.letters.clear()
            self._hand_over("q.dead")
        self._hand_over(queue)

    def _hand_over(self, queue: str) -> None:
        for worker in [each for each in self.line if each.queue == queue]:
            if self.free(queue) and self.vacant(queue):
                self.line.remove(worker)
                worker.inbox = self._lease(worker)
