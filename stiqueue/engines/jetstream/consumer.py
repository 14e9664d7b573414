"""One subscription of a gateway: has credit, asks for as many messages as it has credit for, and never for more."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from nats.aio.msg import Msg

from stiqueue.clock import Clock
from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.engines.jetstream.envelope import open_message, origin
from stiqueue.engines.jetstream.leases import ACK, SETTLE_SECONDS, TERM, Lease, Leases
from stiqueue.engines.jetstream.pull import End, Pull
from stiqueue.engines.jetstream.streams import NANOSECONDS, Streams
from stiqueue.entry import Entry, Leased
from stiqueue.errors import StiQueueError
from stiqueue.message import Subscription

CHUNK_MESSAGES = 1_000
CHUNK_BYTES = 1 << 20
"""Most that is delivered in one step; a larger message goes alone."""
MOMENT_SECONDS = 0.05


class Desk(Protocol):
    """The engine, as far as its consumers are concerned."""

    cluster: Cluster
    streams: Streams
    leases: Leases
    clock: Clock

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let `work` go on beside; the engine waits for it when it closes."""
        ...

    def leave(self, consumer: JetStreamConsumer) -> None:
        """Forget a consumer."""
        ...


class JetStreamConsumer:
    """See `stiqueue.engine.Consumer`."""

    def __init__(self, desk: Desk, asked: Subscription, wake: Callable[[], None]) -> None:
        """Subscribe; nothing is asked for before the first `take`."""
        self._desk = desk
        self.asked = asked
        self._wake = wake
        self._pull = Pull(desk.cluster, desk.streams, desk.spawn, asked.queue, self)
        self._left: float = asked.max_messages or float("inf")
        self._bytes_left = asked.prefetch_bytes
        self._held: dict[str, Lease] = {}
        self._inbox: list[Leased] = []
        self._idle_since: float | None = None
        self._dry = False
        """Whether the cluster had nothing when it was last asked, and nothing came in the moment after."""
        self._seems_dry = False
        """Whether the cluster had nothing when it was last asked."""
        self._alone = False
        """Whether the next message is too large for the credit in bytes, and is to come alone."""
        self._failure: StiQueueError | None = None
        self._finishing = self._closed = False
        self._late: list[tuple[int, str]] = []
        self._final: list[tuple[Entry, str]] = []
        """Messages that came with `no_ack` and are not acknowledged yet."""
        self._settling = 0
        """Messages that it holds until the cluster confirms their acknowledgement."""
        self._under_way = 0
        """Messages that came and are being settled before they are given to anybody."""

    # -- for the stream -----------------------------------------------------------------------------------------------

    def take(self) -> list[Leased] | None:
        if self._failure is not None:
            self.close()
            raise self._failure
        if self._closed:
            return None
        if self._inbox:
            return self._next_chunk()
        if not self._held and self._idle_since is None:
            self._idle_since = self._desk.clock.monotonic()
        if self._ended():
            self.close()
            return None
        if self._credit() > 0 and not (self._alone and self._held):
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
    def closed(self) -> bool:
        """Whether it is given nothing more and gives back what it holds."""
        return self._closed

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._desk.leave(self)
            self._inbox = []
            self._wake()
            self._desk.spawn(self._go())

    def _ended(self) -> bool:
        if self._held or self._under_way or self._final:
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
        """Stop what stands, then give back: in this order, or what is given back could come here again."""
        await self._pull.stop()
        held, late, self._late = list(self._held.values()), self._late, []
        late += [(entry.id, reply) for entry, reply in self._final]
        self._final = []
        await self._desk.leases.release(held, late)

    # -- for the table of leases --------------------------------------------------------------------------------------

    def drop(self, lease: Lease) -> None:
        """Hold a message no more."""
        if self._held.pop(lease.lease_id, None) is not None:
            self._bytes_left += lease.entry.size

    def settling(self, number: int) -> None:
        """Have credit for so many more messages: their acknowledgement is on its way, or (below 0) has come to an end.

        So the next messages come while the cluster stores that. A stream that ends when nothing is ready waits for it,
        to ask again then.
        """
        self._settling += number
        if number > 0 and self.asked.wait != 0 and not self._closed and not self._pull.stands:
            self._wake()

    def freed(self) -> None:
        """Something was settled: there is room again, or nothing more to wait for."""
        if self._closed:
            return
        if not self._held:
            self._idle_since = self._desk.clock.monotonic()
            self._dry = self._dry or self._pull.expected > 0
            if self._finishing or self._left <= 0 or self.asked.wait is not None:
                self._wake()
                return
        if not self._pull.stands:
            self._wake()  # `take` asks for more

    # -- for the pull -------------------------------------------------------------------------------------------------

    def _credit(self) -> int:
        if self._finishing or self._bytes_left <= 0:
            return 0
        held = len(self._held) - (self._settling if self.asked.wait != 0 else 0)
        return int(min(self.asked.prefetch - held - self._under_way, self._left))

    def _request(self) -> dict[str, Any] | None:
        credit = self._credit()
        if credit <= 0:
            return None
        request: dict[str, Any] = {"batch": 1} if self._alone else {"batch": credit, "max_bytes": self._bytes_left}
        if self.asked.wait == 0 and not self._held:
            # The consumer in the cluster learns of a message a moment after its confirmation.
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
        """Ask anew when the standing request may be lost."""
        self._pull.renew()

    def check_silence(self) -> None:
        """Ask anew when the cluster has said nothing for long."""
        self._pull.check_silence()

    def arrived(self, message: Msg) -> None:
        """See `pull.Owner`."""
        self._seems_dry = False
        where = origin(message.reply)
        entry, expires = open_message(
            where.sequence, where.deliveries - 1, where.time_ms, message.data, message.headers
        )
        if expires is not None and expires <= time.time() * 1000:
            self._desk.spawn(self._drop_expired(message.reply))
        elif self._desk.leases.is_last_attempt(self.asked.queue, entry.attempt):
            self._desk.spawn(self._bury(entry, message.reply))
        elif self.asked.no_ack:
            self._left -= 1
            if not self._final:
                self._desk.spawn(self._acknowledge_and_deliver())
            self._final.append((entry, message.reply))
        else:
            self._left -= 1
            lease = self._desk.leases.grant(self.asked.queue, entry, message.reply, self)
            self._held[lease.lease_id] = lease
            self._bytes_left -= entry.size
            self._deliver(lease)

    def too_late(self, message: Msg) -> None:
        """See `pull.Owner`."""
        self._late.append((origin(message.reply).sequence, message.reply))
        if not self._closed:
            late, self._late = self._late, []
            self._desk.spawn(self._desk.leases.release([], late))

    def _deliver(self, message: Leased) -> None:
        self._idle_since = None
        if not self._inbox:
            self._wake()
        self._inbox.append(message)

    async def _drop_expired(self, reply: str) -> None:
        """Drop a message whose time was over before the cluster noticed."""
        self._under_way += 1
        unconfirmed = await self._desk.cluster.confirm([(reply, TERM)], SETTLE_SECONDS)
        self._under_way -= 1
        self._desk.leases.totals[self.asked.queue].expired += not unconfirmed
        self._wake()

    async def _acknowledge_and_deliver(self) -> None:
        """Have the messages that came together forgotten by the cluster; then deliver them, once at the most."""
        final, self._final = self._final, []
        self._under_way += len(final)
        unconfirmed = await self._desk.cluster.confirm([(reply, ACK) for _, reply in final], SETTLE_SECONDS)
        self._under_way -= len(final)
        for index, (entry, _) in enumerate(final):
            if index in unconfirmed:
                self._left += 1
            else:
                self._desk.leases.totals[self.asked.queue].acked += 1
                self._deliver(Lease("", self.asked.queue, entry, "", self, 0.0))

    async def _bury(self, entry: Entry, reply: str) -> None:
        self._under_way += 1
        try:
            await self._desk.leases.bury_unleased(self.asked.queue, entry, reply)
        except StiQueueError:
            pass  # it comes again, to be buried then
        finally:
            self._under_way -= 1
            self._wake()
