"""The protocol between gateways: presence, settlements of each other's leases, and reports of held messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from nats.aio.msg import Msg

from stiqueue.engines.jetstream.answers import NobodyThere
from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.engines.jetstream.leases import SETTLE_SECONDS
from stiqueue.engines.jetstream.names import Names
from stiqueue.errors import StiQueueError, Unavailable
from stiqueue.message import Outcome, Settlement

HELLO_SECONDS = 2.0
"""The time between two announcements of a gateway."""
GONE_SECONDS = 7.0
"""A gateway silent for this long counts as gone."""
ANSWER_SECONDS = 1.0
"""Timeout for a gateway's report."""
CHUNK = 4_000
"""Most leases in one answer."""


@dataclass
class Holding:
    """One lease, as reported by its gateway."""

    id: int
    consumer: str
    age_ms: int
    left_ms: int | None
    attempt: int


@dataclass
class Held:
    """The messages of one queue that gateways hold, and their counters."""

    leases: list[Holding] = field(default_factory=list)
    delayed: dict[int, int] = field(default_factory=dict)
    """Messages requeued with a delay: the ms until they return, by id."""
    consumers: int = 0
    totals: dict[str, int] = field(default_factory=dict)

    def add(self, other: Held) -> None:
        """Add the report of another gateway, or the next part of a report."""
        self.leases += other.leases
        self.delayed |= other.delayed
        self.consumers += other.consumers
        for name, number in other.totals.items():
            self.totals[name] = self.totals.get(name, 0) + number


class Own(Protocol):
    """The part of this gateway that answers the others."""

    async def settle_own(self, settlement: Settlement) -> list[str]:
        """Settle leases of this gateway."""
        ...

    def held_of(self, queue: str) -> Held:
        """Return the messages of a queue that this gateway holds."""
        ...

    async def learn_settings(self) -> None:
        """Read the settings of queues again."""
        ...

    @property
    def settings_version(self) -> str:
        """Which settings of queues this gateway knows; not in the order of time."""
        ...

    def queues_in_use(self) -> list[str]:
        """Return the queues that have consumers at this gateway."""
        ...


class Gateways:
    """Talks to the other gateways and answers them."""

    def __init__(self, cluster: Cluster, names: Names, own_id: str, own: Own, spawn: Callable[[Any], None]) -> None:
        """Speak for the gateway `own_id`; `start` begins."""
        self._cluster = cluster
        self._names = names
        self._id = own_id
        self._own = own
        self._spawn = spawn
        self._seen: dict[str, float] = {}
        """The time when each other gateway was last heard."""
        self._said_hello = 0.0

    async def start(self) -> None:
        """Subscribe, and announce this gateway."""
        await self._cluster.subscribe(self._names.gateway(self._id), self._settle_for_another)
        await self._cluster.subscribe(self._names.gateways, self._heard)
        await self.say("hello", answer=True)

    async def say(self, word: str, reply: str = "", **more: Any) -> None:
        """Broadcast a word to all gateways, which may answer to the subject `reply`."""
        words = {"from": self._id, "say": word, "settings": self._own.settings_version, **more}
        message = json.dumps(words).encode()
        with contextlib.suppress(Unavailable):
            await self._cluster.send(self._names.gateways, message, reply)

    async def keep_saying_hello(self) -> None:
        """Announce this gateway if it is time to."""
        now = time.monotonic()
        if now - self._said_hello >= HELLO_SECONDS:
            self._said_hello = now
            await self.say("hello")

    def others(self) -> list[str]:
        """Return the other gateways that are alive."""
        now = time.monotonic()
        self._seen = {each: seen for each, seen in self._seen.items() if now - seen < GONE_SECONDS}
        return list(self._seen)

    async def _heard(self, message: Msg) -> None:
        said = json.loads(message.data)
        sender = said["from"]
        if sender == self._id:
            return
        if said["say"] == "bye":
            self._seen.pop(sender, None)
            return
        self._seen[sender] = time.monotonic()
        if said["say"] == "settings":
            self._spawn(self.learn_settings(message.reply))
        elif said["settings"] != self._own.settings_version:  # one of the two has to read them again
            self._spawn(self.learn_settings())
        if said["say"] == "hello" and said.get("answer"):
            await self.say("hello")
        elif said["say"] == "tell":
            self._spawn(self._tell(said["queues"], message.reply))

    # -- settings of queues -------------------------------------------------------------------------------------------

    async def spread_settings(self) -> None:
        """Let the living gateways read the settings that this one has changed; return when they have, or in a second.

        Those that have not are told with the next announcement of this gateway.
        """
        await self._ask_others("settings", lambda _: None)

    async def learn_settings(self, reply: str = "") -> None:
        """Read the settings that another gateway has changed, and tell it so by `reply`."""
        with contextlib.suppress(StiQueueError):  # the next announcement repeats it
            await self._own.learn_settings()
            if reply:
                await self._answer(reply, {}, last=True)

    # -- settling for each other --------------------------------------------------------------------------------------

    async def settle(self, settlement: Settlement) -> list[str]:
        """Settle leases of any gateway; return those that are not held.

        Raises:
            Unavailable: a living gateway did not answer.
        """
        by_gateway: dict[str, list[str]] = {}
        for lease_id in dict.fromkeys(settlement.lease_ids):
            by_gateway.setdefault(lease_id.partition("-")[0], []).append(lease_id)
        answers = await asyncio.gather(
            *(self._settle_at(gateway, lease_ids, settlement) for gateway, lease_ids in by_gateway.items())
        )
        stale = {lease_id for answer in answers for lease_id in answer}
        return [lease_id for lease_id in settlement.lease_ids if lease_id in stale]

    async def _settle_at(self, gateway: str, lease_ids: list[str], asked: Settlement) -> list[str]:
        part = Settlement(lease_ids, asked.outcome, asked.delay, asked.reason, asked.close_stream)
        if gateway == self._id:
            return await self._own.settle_own(part)
        if not gateway.isalnum():
            return lease_ids
        try:
            answer = await self._cluster.ask(
                self._names.gateway(gateway), json.dumps(part._asdict()).encode(), timeout=SETTLE_SECONDS + 1
            )
        except NobodyThere as error:
            if gateway in self.others() or not self._cluster.is_connected:
                raise Unavailable(f"the gateway {gateway} cannot be reached now") from error
            return lease_ids  # the gateway is gone, and its streams and leases with it
        read = json.loads(answer.data)
        if "error" in read:
            raise Unavailable(read["error"])
        stale: list[str] = read["stale"]
        return stale

    async def _settle_for_another(self, message: Msg) -> None:
        self._spawn(self._settle_and_answer(message))

    async def _settle_and_answer(self, message: Msg) -> None:
        asked = json.loads(message.data)
        settlement = Settlement(**asked | {"outcome": Outcome(asked["outcome"])})
        try:
            answer: dict[str, Any] = {"stale": await self._own.settle_own(settlement)}
        except StiQueueError as error:
            answer = {"error": str(error)}
        with contextlib.suppress(Unavailable):
            await self._cluster.send(message.reply, json.dumps(answer).encode())

    # -- telling what is held -----------------------------------------------------------------------------------------

    async def held(self, queues: Sequence[str] | None) -> dict[str, Held]:
        """Return the reports of all gateways on `queues`; None: on all queues that have consumers."""
        found: dict[str, Held] = {}
        _add(found, self._told(queues))

        def heard(answer: dict[str, Any]) -> None:
            _add(found, {queue: _read_held(told) for queue, told in answer["held"].items()})

        await self._ask_others("tell", heard, queues=queues)
        return found

    async def _ask_others(self, word: str, hear: Callable[[dict[str, Any]], None], **more: Any) -> None:
        """Broadcast a word and `hear` all answers of the living gateways, for up to a second."""
        waiting = set(self.others())
        if not waiting:
            return
        done = asyncio.get_running_loop().create_future()

        async def heard(message: Msg) -> None:
            answer = json.loads(message.data)
            hear(answer)
            if answer["last"]:
                waiting.discard(answer["from"])
            if not waiting and not done.done():
                done.set_result(None)

        inbox = self._cluster.new_inbox()
        interest = await self._cluster.subscribe(inbox, heard)
        try:
            await self.say(word, inbox, **more)
            await asyncio.wait_for(done, ANSWER_SECONDS)
        except asyncio.TimeoutError:
            pass  # the gateway may be dying; then the cluster gives back its messages
        finally:
            with contextlib.suppress(Exception):  # the connection is gone
                await interest.unsubscribe()

    def _told(self, queues: Sequence[str] | None) -> dict[str, Held]:
        return {queue: self._own.held_of(queue) for queue in (self._own.queues_in_use() if queues is None else queues)}

    async def _tell(self, queues: Sequence[str] | None, reply: str) -> None:
        for queue, held in self._told(queues).items():
            parts = [held.leases[begin : begin + CHUNK] for begin in range(0, len(held.leases), CHUNK)] or [[]]
            for number, part in enumerate(parts):
                told = Held(part, held.delayed, held.consumers, held.totals) if not number else Held(part)
                await self._answer(reply, {queue: asdict(told)}, last=False)
        await self._answer(reply, {}, last=True)

    async def _answer(self, reply: str, held: dict[str, Any], last: bool) -> None:
        message = json.dumps({"from": self._id, "held": held, "last": last}).encode()
        with contextlib.suppress(Unavailable):
            await self._cluster.send(reply, message)


def _add(found: dict[str, Held], more: dict[str, Held]) -> None:
    for queue, held in more.items():
        found.setdefault(queue, Held()).add(held)


def _read_held(told: dict[str, Any]) -> Held:
    delayed = {int(each): left for each, left in told["delayed"].items()}
    return Held([Holding(**each) for each in told["leases"]], delayed, told["consumers"], told["totals"])
