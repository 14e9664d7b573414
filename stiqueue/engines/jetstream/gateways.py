"""What gateways say to each other: who is there, settlements for each other's leases, and what each of them holds."""

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
"""How often a gateway says that it is there."""
GONE_SECONDS = 7.0
"""A gateway that says nothing for so long is not waited for."""
ANSWER_SECONDS = 1.0
"""How long a gateway may take to say what it holds."""
CHUNK = 4_000
"""Leases in one answer."""


@dataclass
class Holding:
    """One lease, as its gateway tells it."""

    id: int
    consumer: str
    age_ms: int
    left_ms: int | None
    attempt: int


@dataclass
class Held:
    """What gateways hold of one queue."""

    leases: list[Holding] = field(default_factory=list)
    delayed: dict[int, int] = field(default_factory=dict)
    """Messages that were requeued with a delay, and in how many ms they return."""
    consumers: int = 0
    totals: dict[str, int] = field(default_factory=dict)

    def add(self, other: Held) -> None:
        """Add what another gateway, or the next part of an answer, tells."""
        self.leases += other.leases
        self.delayed |= other.delayed
        self.consumers += other.consumers
        for name, number in other.totals.items():
            self.totals[name] = self.totals.get(name, 0) + number


class Own(Protocol):
    """What this gateway answers to others."""

    async def settle_own(self, settlement: Settlement) -> list[str]:
        """Settle leases of this gateway."""
        ...

    def held_of(self, queue: str) -> Held:
        """Return what this gateway holds of a queue."""
        ...

    def queues_in_use(self) -> list[str]:
        """Return the queues that this gateway has consumers of."""
        ...


class Gateways:
    """The other gateways, and this one to them."""

    def __init__(self, cluster: Cluster, names: Names, own_id: str, own: Own, spawn: Callable[[Any], None]) -> None:
        """Speak for the gateway `own_id`; nothing is sent before `start`."""
        self._cluster = cluster
        self._names = names
        self._id = own_id
        self._own = own
        self._spawn = spawn
        self._seen: dict[str, float] = {}
        """When another gateway was last heard."""
        self._said_hello = 0.0

    async def start(self) -> None:
        """Be there for others."""
        await self._cluster.subscribe(self._names.gateway(self._id), self._settle_for_another)
        await self._cluster.subscribe(self._names.gateways, self._heard)
        await self.say("hello", answer=True)

    async def say(self, word: str, **more: Any) -> None:
        """Say something to all gateways."""
        message = json.dumps({"from": self._id, "say": word, **more}).encode()
        with contextlib.suppress(Unavailable):
            await self._cluster.send(self._names.gateways, message)

    async def keep_saying_hello(self) -> None:
        """Say that this gateway is there, when it is time to."""
        now = time.monotonic()
        if now - self._said_hello >= HELLO_SECONDS:
            self._said_hello = now
            await self.say("hello")

    def others(self) -> list[str]:
        """Return the gateways that are there, without this one."""
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
        if said["say"] == "hello" and said.get("answer"):
            await self.say("hello")
        elif said["say"] == "tell":
            self._spawn(self._tell(said["queues"], message.reply))

    # -- settling for each other --------------------------------------------------------------------------------------

    async def settle(self, settlement: Settlement) -> list[str]:
        """Settle leases of any gateway; return those that are not held.

        Raises:
            Unavailable: a gateway that is there did not answer.
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
            return lease_ids  # it is gone, its streams with it, and their leases with them
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
        """Return what all gateways hold of `queues`; None: of all queues that they have consumers of."""
        found: dict[str, Held] = {}
        _add(found, self._told(queues))
        waiting = set(self.others())
        if not waiting:
            return found
        done = asyncio.get_running_loop().create_future()

        async def heard(message: Msg) -> None:
            answer = json.loads(message.data)
            _add(found, {queue: _read_held(told) for queue, told in answer["held"].items()})
            if answer["last"]:
                waiting.discard(answer["from"])
            if not waiting and not done.done():
                done.set_result(None)

        inbox = self._cluster.new_inbox()
        interest = await self._cluster.subscribe(inbox, heard)
        question = {"from": self._id, "say": "tell", "queues": queues}
        try:
            await self._cluster.send(self._names.gateways, json.dumps(question).encode(), inbox)
            await asyncio.wait_for(done, ANSWER_SECONDS)
        except asyncio.TimeoutError:
            pass  # it may be dying; the cluster gives back what it held
        finally:
            with contextlib.suppress(Exception):  # the connection is gone
                await interest.unsubscribe()
        return found

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
