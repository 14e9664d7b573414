"""A recorded history, indexed: who sent what, who held it from when to when, and which faults happened meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .recorder import Event

SECOND = 1_000_000_000
FOREVER = 1 << 62

CLUSTER = "cluster"
"""The target of faults of servers behind the gateways: no stream breaks, but what was delivered may be so again."""

SETTLE_S = 10.0
"""How long after its end a fault may still have consequences: a dead peer is noticed within 8 s."""

SETTLE_DEATH_S = 1.0
"""The same for a server's death, which ends its streams at once; what they had received is read within this time."""


@dataclass(slots=True)
class Send:
    """What became of the attempts to enqueue one message."""

    safe: int = 0
    """Attempts with a request id that were not refused: together they make one message at the most."""
    unsafe: int = 0
    """Attempts without one that were not refused: each may make a message."""
    confirmed: bool = False

    @property
    def most_copies(self) -> int:
        """How many copies of the message there may be."""
        return min(self.safe, 1) + self.unsafe


@dataclass(frozen=True, slots=True)
class Delivery:
    """One reception of a message."""

    t: int
    client: str
    value: str
    queue: str
    id: str
    lease: str
    attempt: int
    stream: str

    @property
    def copy(self) -> tuple[str, str, str]:
        """Which message of the server it is: one value can be in the queue twice when it was sent twice."""
        return self.queue, self.id, self.value


@dataclass(slots=True)
class Stream:
    """One `Deq` stream, from its client's side."""

    opened: int = 0
    """When its client was about to open it."""
    reopens: bool = False
    """Whether its client opens it again by itself, unseen, when it breaks: then one name stands for many streams."""
    via: str = ""
    """The proxy it goes through."""
    ack_timeout_s: float = 0.0
    no_ack: bool = False
    end: int = FOREVER
    """When its client gave it up or saw it end."""


@dataclass(slots=True)
class Settlement:
    """What a consumer said about one lease, and what it was answered."""

    acked: int = FOREVER
    """When it called `Ack` to acknowledge."""
    nacked: int = FOREVER
    """When it called `Ack` to give back."""
    confirmed: int = FOREVER
    """When it was told that the acknowledgement took effect."""
    unanswered: int = 0
    """Acknowledgements that may have taken effect without an answer."""


@dataclass(slots=True)
class Fault:
    """One fault: it breaks the streams of its target from `begin` on, and until `end` those that are opened."""

    target: str
    kind: str
    begin: int
    effect: int = FOREVER
    """When it was seen to have taken effect."""
    healed: int = FOREVER
    """When it was over."""
    end: int = FOREVER
    """When it had its last consequences."""

    @property
    def over(self) -> int:
        """Until when it breaks what begins: what begins after a server was killed goes to its next life."""
        return self.effect if (self.target, self.kind) == ("server", "sigkill") else self.healed


@dataclass
class History:
    """All events of a run, by what they are about."""

    sends: dict[str, Send] = field(default_factory=dict)
    deliveries: list[Delivery] = field(default_factory=list)
    settlements: dict[str, Settlement] = field(default_factory=lambda: defaultdict(Settlement))
    streams: dict[str, Stream] = field(default_factory=lambda: defaultdict(Stream))
    faults: list[Fault] = field(default_factory=list)
    cancelled: int = 0
    """Streams that their client cancelled."""
    _leased: dict[str, list[Delivery]] = field(default_factory=lambda: defaultdict(list))
    """The deliveries of each lease."""
    drains: dict[str, bool] = field(default_factory=dict)
    """Whether the last drain of each queue has left it empty."""

    @classmethod
    def of(cls, events: Iterable[Event]) -> History:
        """Index `events`, which are in the order of time."""
        history = cls()
        for event in events:
            getattr(history, f"_on_{event.op}")(event)
        return history

    def by_copy(self) -> dict[tuple[str, str, str], list[Delivery]]:
        """Return the deliveries of each message, in the order of time."""
        found: dict[tuple[str, str, str], list[Delivery]] = defaultdict(list)
        for delivery in self.deliveries:
            found[delivery.copy].append(delivery)
        return found

    def releases(self, delivery: Delivery, slack_s: float) -> Iterator[tuple[int, str]]:
        """Yield when the server may have taken `delivery` back, and why."""
        stream = self.streams[delivery.stream]
        if stream.end < FOREVER:
            yield stream.end, "stream"
        if stream.ack_timeout_s:
            yield delivery.t + int((stream.ack_timeout_s - slack_s) * SECOND), "timeout"
        if delivery.lease in self.settlements and self.settlements[delivery.lease].nacked < FOREVER:
            yield self.settlements[delivery.lease].nacked, "nack"
        for fault in self.faults:
            if self._breaks(fault, delivery) or (fault.target == CLUSTER and delivery.t <= fault.end):
                yield fault.begin, fault.kind

    def late(self, delivery: Delivery) -> bool:
        """Whether `delivery` was read from a stream that may have been over by then.

        It may have been sent long before, so nothing follows from when it was written down.
        """
        stream = self.streams[delivery.stream]
        return stream.end <= delivery.t or any(
            fault.begin <= delivery.t and self._breaks(fault, delivery)
            for fault in self.faults
            if not (fault.target == "server" and stream.reopens)
        )

    def gives_back(self, since: int, until: int, but: str) -> bool:
        """Whether a stream other than `but` may have ended in this time.

        A message that it was given and not yet sent returns to its old place, without an attempt having been counted.
        """
        return any(since <= stream.end <= until for name, stream in self.streams.items() if name != but) or any(
            fault.begin <= until and since <= fault.end for fault in self.faults
        )

    def _breaks(self, fault: Fault, delivery: Delivery) -> bool:
        """Whether `fault` may have ended, or may be about to end, the stream of `delivery`."""
        stream = self.streams[delivery.stream]
        if delivery.t > fault.end:
            return False
        if fault.target not in ("server", delivery.client, stream.via):
            return False
        return stream.reopens or stream.opened <= fault.over

    @property
    def drained(self) -> bool:
        """Whether the server was seen to be empty at the end."""
        return bool(self.drains) and all(self.drains.values())

    def server_deaths(self) -> list[int]:
        """Return when the server died, in the order of time."""
        return [fault.begin for fault in self.faults if fault.target == "server"]

    def _on_enq(self, event: Event) -> None:
        send = self.sends.setdefault(event.value, Send())
        change = {"invoke": 1, "fail": -1}.get(event.outcome, 0)
        if event.facts.get("rid") == "1":
            send.safe += change
        else:
            send.unsafe += change
        send.confirmed |= event.outcome == "ok"

    def _on_deq(self, event: Event) -> None:
        facts = event.facts
        stream = facts.get("stream", event.client)
        lease = facts.get("lease", "")
        queue, number, attempt = facts.get("queue", ""), facts.get("id", ""), int(facts.get("attempt", 1))
        self.deliveries.append(Delivery(event.t, event.client, event.value, queue, number, lease, attempt, stream))
        self._leased[lease].append(self.deliveries[-1])

    def _on_ack(self, event: Event) -> None:
        settlement = self.settlements[event.facts["lease"]]
        if event.outcome == "invoke":
            settlement.acked = min(settlement.acked, event.t)
            settlement.unanswered += 1
        elif event.outcome == "ok" or (event.outcome == "stale" and not self._may_be_repeated(event, settlement)):
            settlement.unanswered -= 1
        if event.outcome == "ok":
            settlement.confirmed = min(settlement.confirmed, event.t)

    def _may_be_repeated(self, event: Event, settlement: Settlement) -> bool:
        """Whether a client that reconnects may have asked twice: then a stale lease may have been settled.

        It does where a fault has struck the way of its first question or of the answer, or the client itself.
        """
        for delivery in self._leased[event.facts["lease"]]:
            stream = self.streams[delivery.stream]
            ways = ("server", stream.via, delivery.client)
            if stream.reopens and any(each.target in ways and settlement.acked <= each.over for each in self.faults):
                return True
        return False

    def _on_nack(self, event: Event) -> None:
        if event.outcome == "invoke":
            settlement = self.settlements[event.facts["lease"]]
            settlement.nacked = min(settlement.nacked, event.t)

    def _on_stream(self, event: Event) -> None:
        stream = self.streams[event.value]
        if event.outcome == "open":
            stream.opened = event.t
            stream.reopens = event.facts.get("reopens") == "1"
            stream.via = event.facts.get("via", "")
            stream.ack_timeout_s = float(event.facts.get("ack_timeout", 0))
            stream.no_ack = event.facts.get("no_ack") == "1"
        else:
            stream.end = min(stream.end, event.t)
            self.cancelled += event.facts.get("how") == "cancel"

    def _on_fault(self, event: Event) -> None:
        kind = event.facts["kind"]
        if event.outcome == "invoke":
            self.faults.append(Fault(event.value, kind, event.t))
            return
        fault = next(fault for fault in reversed(self.faults) if (fault.target, fault.kind) == (event.value, kind))
        if event.outcome == "ok":
            fault.effect = event.t
        else:
            settle_s = SETTLE_DEATH_S if kind in ("sigkill", "sigterm") else SETTLE_S
            fault.healed = event.t
            fault.end = event.t + int(settle_s * SECOND)

    def _on_drain(self, event: Event) -> None:
        self.drains[event.value] = event.outcome == "ok"
