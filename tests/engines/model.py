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

    def ready(self, queue: str) -> list[Sent]:
        found = [each for each in self.messages if each.queue == queue and not each.holder and each.due is None]
        return sorted(found, key=lambda each: (-each.priority, each.id))

    def enq(self, new: Sequence[Sent], request_id: str, finished: Sequence[str]) -> tuple[int, int, bool]:
        queue = new[0].queue
        if (queue, request_id) in self.requests:
            return (*self.requests[queue, request_id][1:], True)
        done = self.held(finished)
        if len(done) < len(finished):
            raise LeaseStale("")
        if len([each for each in self.messages if each.queue == queue]) + len(new) > self.max_messages:
            raise QueueFull("")
        first = self.last_id[queue] + 1
        if request_id:
            self.requests[queue, request_id] = (self.now, first, len(new))
        if not self.writes:
            self._add(new)
        self.settle(done, Outcome.ACK)
        if self.writes:
            self._add(new)
        self._hand_over(queue)
        return first, len(new), False

    def take(self, worker: Worker) -> list[Sent]:
        given, worker.inbox = worker.inbox, []
        if not given:
            if worker in self.line:
                self.line.remove(worker)
            given = self._lease(worker)
            if not given and len(worker.held) < worker.prefetch:
                self.line.append(worker)
        return given

    def held(self, lease_ids: Sequence[str]) -> list[Sent]:
        by_lease = {each.lease_id: each for each in self.messages if each.holder}
        return [by_lease[each] for each in lease_ids if each in by_lease]

    def settle(self, leased: list[Sent], outcome: Outcome, delay: float = 0.0) -> None:
        workers = [each.holder for each in leased]
        for each in sorted(leased, key=lambda each: workers.index(each.holder)):  # one consumer's after another's
            worker = each.holder
            assert worker is not None
            if outcome is Outcome.EXTEND:
                each.deadline = self.now + delay
            elif outcome is Outcome.ACK:
                self._end(each, "acked")
            elif outcome is Outcome.DEAD_LETTER:
                self._end(each, "dead_lettered", "rejected")
            else:
                self._give_back(each, self.now + delay if delay else None)
            self._free(worker)
        for queue in {each.queue for each in leased}:
            self._after(queue)

    def close(self, worker: Worker) -> None:
        self.workers.remove(worker)
        if worker in self.line:
            self.line.remove(worker)
        for each in list(worker.held):
            self._give_back(each)
        self._after(worker.queue)

    def next_due(self, queue: str) -> float:
        here = [each for each in self.messages if each.queue == queue]
        times = [when for each in here for when in (not each.holder and each.expires, each.due, each.deadline) if when]
        return min(times, default=float("inf"))

    def tick(self, now: float) -> None:
        self.now = now
        for queue in QUEUES:
            here = [each for each in self.messages if each.queue == queue]
            for each in here:
                if each.expires and each.expires <= now and not each.holder:
                    self._end(each, "expired")
                if each.due and each.due <= now:
                    each.due = None
            late = [each for each in here if each.deadline and each.deadline <= now]
            late.sort(key=lambda each: each.id)
            holders = {each.holder: None for each in late if each.holder}
            for each in late:
                self._give_back(each)
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
            each.attempt -= self.now - each.since < YOUNG
            self._give_back(each)
        self._after("q")
        for totals in self.totals.values():
            totals["requeued"] = 0

    # -- what happens in there ----------------------------------------------------------------------------------------

    def _add(self, new: Sequence[Sent]) -> None:
        self.messages += new
        self.totals[new[0].queue]["enqueued"] += len(new)
        self.last_id[new[0].queue] = new[-1].id

    def _lease(self, worker: Worker) -> list[Sent]:
        given = self.ready(worker.queue)[: worker.prefetch - len(worker.held)]
        for each in given:
            each.holder, each.since, each.attempt = worker, self.now, each.attempt + 1
            each.deadline = self.now + worker.ack_timeout if worker.ack_timeout else None
        worker.held += given
        return given

    def _let_go(self, leased: Sent) -> None:
        if leased.holder:
            for having in (leased.holder.held, leased.holder.inbox):
                if leased in having:
                    having.remove(leased)
        leased.holder, leased.deadline, leased.lease_id = None, None, ""

    def _give_back(self, leased: Sent, due: float | None = None) -> None:
        self._let_go(leased)
        self.totals[leased.queue]["requeued"] += 1
        if leased.expires and leased.expires <= self.now:
            self._end(leased, "expired")
        elif leased.queue == "q" and 0 < self.max_attempts <= leased.attempt:
            self._end(leased, "dead_lettered", "max-attempts")
        leased.due = due

    def _end(self, message: Sent, how: str, reason: str = "") -> None:
        self._let_go(message)
        self.messages.remove(message)
        self.totals[message.queue][how] += 1
        if reason:
            self.letters.append((message, reason))

    def _free(self, worker: Worker) -> None:
        if not worker.inbox and len(worker.held) < worker.prefetch and worker not in self.line:
            self.line.append(worker)

    def _after(self, queue: str) -> None:
        if self.writes:
            self._hand_over(queue)
        for old, reason in self.letters:
            why = {"stiqueue-dead-queue": old.queue, "stiqueue-dead-attempts": str(old.attempt)}
            headers = {**why, **old.headers, "stiqueue-dead-reason": reason}
            self._add([Sent("q.dead", self.last_id["q.dead"] + 1, old.body, old.priority, headers, self.now)])
        if self.letters:
            self.letters.clear()
            self._hand_over("q.dead")
        self._hand_over(queue)

    def _hand_over(self, queue: str) -> None:
        for worker in [each for each in self.line if each.queue == queue]:
            if self.ready(queue):
                self.line.remove(worker)
                worker.inbox = self._lease(worker)
