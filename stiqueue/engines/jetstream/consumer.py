"""One subscription of a gateway: it requests as many messages as its credit allows, never more."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from nats.aio.msg import Msg

from stiqueue.engines.jetstream.desk import Desk
from stiqueue.engines.jetstream.envelope import open_message, origin
from stiqueue.engines.jetstream.lease import Lease
from stiqueue.engines.jetstream.pull import End, Pull
from stiqueue.engines.jetstream.stream_consumers import NANOSECONDS
from stiqueue.engines.jetstream.unleased import Unleased
from stiqueue.errors import StiQueueError
from stiqueue.message import Subscription
from stiqueue.rules.arrears import Arrears
from stiqueue.rules.entry import Entry, Leased

CHUNK_MESSAGES = 1_000
CHUNK_BYTES = 1 << 20
"""Most bytes delivered in one step; a larger message goes alone."""
MOMENT_SECONDS = 0.05


class JetStreamConsumer:
    """See `stiqueue.rules.engine.Consumer`."""

    def __init__(self, desk: Desk, asked: Subscription, wake: Callable[[], None]) -> None:
        """Subscribe; the first `take` requests messages."""
        self._desk = desk
        self.asked = asked
        self._wake = wake
        self._pull = Pull(desk.cluster, desk.streams, desk.spawn, asked.queue, self)
        self._left: float = asked.max_messages or float("inf")
        self._bytes_left = asked.prefetch_bytes
        self._concurrency = min(asked.concurrency or asked.prefetch, asked.prefetch)
        self._arrears = Arrears()
        self._held: dict[str, Lease] = {}
        self._inbox: list[Leased] = []
        self._idle_since: float | None = None
        self._dry = False
        """Whether the last request found no message, and none came in the moment after."""
        self._seems_dry = False
        """Whether the last request found no message."""
        self._alone = False
        """Whether the next message is above the credit in bytes, so it must come alone."""
        self._failure: StiQueueError | None = None
        self._finishing = self._closed = False
        self._late: list[tuple[int, str]] = []
        self._unleased = Unleased(desk.cluster, desk.leases, desk.spawn, asked.queue, self)
        self._settling = 0
        """Leases whose acknowledgement the cluster has not confirmed yet."""
        self.leased_ids: Sequence[int] = ()

    # -- for the stream -----------------------------------------------------------------------------------------------

    def take(self) -> list[Leased] | None:
        if self._failure is not None:
            self.close()
            raise self._failure
        if self._closed:
            return None
        if self._inbox:
            return self._next_chunk()
        if not self._held and self._idle_since is None and self._room() > 0:
            self._idle_since = self._desk.clock.monotonic()
        if self._ended():
            self.close()
            return None
        if self._credit() > 0 and not (self._alone and (self._held or self._arrears.is_strict)):
            self._pull.ask(self._request)
        return []

    def _next_chunk(self) -> list[Leased]:
        number = size = 0
        for message in self._inbox[:CHUNK_MESSAGES]:
            size += message.entry.size
            if number and size > CHUNK_BYTES:
                break
            number += 1
        chunk, self._inbox = self._inbox[:number], self._inbox[number:]
        return chunk

    def patience(self) -> float | None:
        if not self.asked.wait or self._idle_since is None:
            return None
        return max(0.0, self._idle_since + self.asked.wait - self._desk.clock.monotonic())

    def finish(self) -> None:
        if not self._finishing and not self._closed:
            self._finishing = True
            self._desk.spawn(self._pull.finish())

    @property
    def ack_timeout(self) -> float | None:
        return self.asked.ack_timeout or self._desk.shared.of(self.asked.queue).ack_timeout or None

    @property
    def closed(self) -> bool:
        """Whether it receives nothing more and gives back its messages."""
        return self._closed

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._desk.leave(self)
            self._desk.leases.forget_late(self)
            self._inbox = []
            self._wake()
            self._desk.spawn(self._go())

    def _ended(self) -> bool:
        if self._held or self._unleased:
            return False
        if self._finishing:
            return not self._pull.stands
        if self._left <= 0:
            return True
        wait = self.asked.wait
        if wait is None or self._idle_since is None:
            return False
        if wait == 0:
            return self._dry
        return self._desk.clock.monotonic() - self._idle_since >= wait

    async def _go(self) -> None:
        """Stop the request, then give back: in the other order, messages given back could come here again."""
        await self._pull.stop()
        held, late, self._late = list(self._held.values()), self._late, []
        late += self._unleased.abandon()
        await self._desk.leases.release(held, late)

    # -- for the table of leases --------------------------------------------------------------------------------------

    def drop(self, lease: Lease) -> None:
        """Stop holding a message."""
        if self._held.pop(lease.lease_id, None) is not None:
            self._bytes_left += lease.entry.size

    def ran_out(self, lease: Lease) -> bool:
        """Count an expired lease against the credit; return whether to remember it."""
        if any(each is lease for each in self._inbox):  # it was never sent
            self._inbox = [each for each in self._inbox if each is not lease]
            self._arrears.take_back_trial()
            return False
        places = max(0, self._concurrency - self._arrears.begun)
        begun = any(each is lease for each in islice(self._held.values(), places))
        self._arrears.add(lease.lease_id, lease.entry.size, begun)
        self._bytes_left -= lease.entry.size
        return True

    def settled_late(self, lease_id: str) -> None:
        """Note that an expired lease was settled: the client lives."""
        if lease_id in self._arrears:
            self._arrears.settle(lease_id)
            self.freed()

    def settled_in_time(self) -> list[str]:
        """Note that a lease was settled in time; return the expired leases that no longer count."""
        forgiven = list(self._arrears)
        self._bytes_left += self._arrears.forgive()
        return forgiven

    def settling(self, number: int) -> None:
        """Add credit for `number` acknowledgements in flight; remove it (below 0) when they have ended.

        So the next messages come while the cluster stores the acknowledgements. A stream that ends when nothing is
        ready waits for that and then requests again.
        """
        self._settling += number
        if number > 0 and self.asked.wait != 0 and not self._closed and not self._pull.stands:
            self._wake()

    def freed(self) -> None:
        """Note that a lease has ended: there is credit again, or nothing more to wait for."""
        if self._closed:
            return
        if not self._held:
            self._idle_since = self._desk.clock.monotonic() if self._room() > 0 else None
            self._dry = self._dry or self._pull.expected > 0
            if self._finishing or self._left <= 0 or self.asked.wait is not None:
                self._wake()
                return
        if not self._pull.stands:
            self._wake()  # `take` asks for more

    # -- for the pull -------------------------------------------------------------------------------------------------

    def _room(self) -> int:
        held = len(self._held) - (self._settling if self.asked.wait != 0 else 0) + self._unleased.settling
        return self._arrears.room(self.asked.prefetch, self._concurrency, held)

    def _credit(self) -> int:
        if self._finishing or (self._bytes_left <= 0 and not self._arrears.trial):
            return 0
        return int(min(self._room(), self._left))

    def _request(self) -> dict[str, Any] | None:
        credit = self._credit()
        if credit <= 0:
            return None
        alone = self._alone or bool(self._arrears.trial)
        request: dict[str, Any] = {"batch": 1} if alone else {"batch": credit, "max_bytes": self._bytes_left}
        if self.asked.wait == 0 and not self._held:
            # If messages are ready that nobody may take now, the cluster does not answer that there are none.
            self._seems_dry = self._seems_dry or self._desk.shared.holds_back(self.asked.queue)
            # The cluster's consumer sees a message a moment after its confirmation.
            request |= {"expires": int(MOMENT_SECONDS * NANOSECONDS)} if self._seems_dry else {"no_wait": True}
        self._alone = self._dry = False
        return request

    def ended(self, why: End) -> None:
        """See `pull.Owner`."""
        self._dry = self._dry or (self._seems_dry and why is End.TIME_OVER)
        self._seems_dry = why is End.NOTHING_THERE
        self._alone = why is End.TOO_LARGE
        if not self._closed:
            self._wake()

    def failed(self, error: StiQueueError) -> None:
        """See `pull.Owner`."""
        self._failure = error
        self._wake()

    def renew(self) -> None:
        """Repeat the request: it may be lost."""
        self._pull.renew()

    def check_silence(self) -> None:
        """Repeat the request if the cluster has been silent for too long."""
        self._pull.check_silence()

    def arrived(self, message: Msg) -> None:
        """See `pull.Owner`."""
        self._seems_dry = False
        where = origin(message.reply)
        entry, expires = open_message(
            where.sequence, where.deliveries - 1, where.time_ms, message.data, message.headers
        )
        if expires is not None and expires <= time.time() * 1000:
            self._unleased.drop(message.reply)
        elif self._desk.leases.is_last_attempt(self.asked.queue, entry.attempt):
            self._unleased.bury(entry, message.reply)
        elif self.asked.no_ack:
            self._left -= 1
            self._unleased.deliver_once(entry, message.reply)
        else:
            self._left -= 1
            lease = self._desk.leases.grant(self.asked.queue, entry, message.reply, self)
            self._held[lease.lease_id] = lease
            self._bytes_left -= entry.size
            if self._arrears.trial:
                self._arrears.trial = False
            self._deliver(lease)

    def too_late(self, message: Msg) -> None:
        """See `pull.Owner`."""
        self._late.append((origin(message.reply).sequence, message.reply))
        if not self._closed:
            late, self._late = self._late, []
            self._desk.spawn(self._desk.leases.release([], late))

    def deliver_unleased(self, entry: Entry) -> None:
        """See `unleased.Owner`."""
        self._deliver(Lease("", self.asked.queue, entry, "", self, 0.0))

    def not_acknowledged(self) -> None:
        """See `unleased.Owner`."""
        self._left += 1

    def came_to_nothing(self) -> None:
        """See `unleased.Owner`."""
        self._wake()

    def _deliver(self, message: Leased) -> None:
        self._idle_since = None
        if not self._inbox:
            self._wake()
        self._inbox.append(message)
