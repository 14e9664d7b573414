"""The leases of one stream: the messages that a client was handed, and how each is settled."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Generic

from stiqueue.client.acks import Acks
from stiqueue.client.backoff import Patience
from stiqueue.client.dropped import Finalizer
from stiqueue.client.enqueue import hand_over, successor
from stiqueue.client.parting import Parting
from stiqueue.client.session import CLOSE_SECONDS, M, Session
from stiqueue.client.transport import Stream
from stiqueue.errors import Closed, LeaseStale, StiQueueError
from stiqueue.limits import check_settlement
from stiqueue.message import Body, Delivered, Message, Outcome, Settlement

NAMES = 100
"""How many leases name a stream to the server when it ends: acks of several threads may arrive in any order."""

SETTLING, GONE = -1.0, -2.0
"""The fates of a lease while somebody settles it by hand, and once it is settled."""


class Holding(Generic[M]):
    """Holds the leases of one stream until they are settled; the holder of its messages, see `message.Holder`.

    Any thread may settle. The flow that reads the stream does everything else.
    """

    def __init__(self, session: Session[M], stream: Stream, queue: str, ends: bool = False, acks: bool = True) -> None:
        """Begin without any.

        Args:
            session: the client's.
            stream: delivers the messages.
            queue: their queue.
            ends: the stream is for one message at a time, and settling that by hand ends the stream.
            acks: closing the client may ack the messages.
        """
        self._session = session
        self.stream = stream
        self.queue = queue
        self.ends = self._is_single = ends
        self._is_acked_by_close = acks
        self.is_ending = False
        """Whether the server may have been told to deliver no more messages on the stream."""
        self.ahead: deque[Delivered] = deque()
        """Messages delivered and not handed out."""
        self.unsettled: dict[str, float | None] = {}
        """The fates of the leases handed out: None, SETTLING, or the delay in seconds with which the message goes back,
        because the settlement that the user asked for failed."""
        self._settled: deque[str] = deque(maxlen=NAMES)
        """The leases settled last. The server knows the stream by the last one."""
        self._to_give_back: list[Settlement] = []
        self.kept: object = None
        """Keeps the last message of a task alive that ended well: closing the client acks it."""
        self._is_retiring = self._is_abandoned = False
        """Whether nobody can settle the message handed out last."""
        self._acks = Acks(session, stream)
        self.flush = self._acks.flush

    def each(self, holds: Callable[[str], bool], finalized: bool = False) -> Iterator[M]:
        """Iterate over the messages `ahead`; with `auto_ack`, asking for the next one acks the last.

        Args:
            holds: returns whether a lease may still be held.
            finalized: give a message back when its `Message` is gone, see `Finalizer`.
        """
        session, queue, ahead, unsettled = self._session, self.queue, self.ahead, self.unsettled
        wrap, auto_ack, ack = session.message.wrap, session.options.auto_ack, session.connected().ack_soon
        acks, answered, note_settled, gone = self._acks, self._acks.answered, self._settled.append, list[str]()
        while ahead:
            try:
                delivered = ahead.popleft()
            except IndexError:  # another thread has closed the client
                break
            lease_id = delivered.lease_id
            if lease_id:
                if not holds(lease_id):  # the server has given it back
                    gone.append(lease_id)
                    continue
                unsettled[lease_id] = None
                if self._is_retiring:  # set before `retire` looks at `unsettled`
                    del unsettled[lease_id]
                    gone.append(lease_id)
                    continue
            yield wrap(delivered, queue, self, Finalizer(self, lease_id) if finalized else None)
            if not auto_ack or not lease_id:
                continue
            fate = unsettled.get(lease_id, GONE)
            if fate is None:
                unsettled.pop(lease_id, None)
                note_settled(lease_id)
                acks.begun += 1
                ack(lease_id, answered)
            elif fate >= 0.0:
                unsettled.pop(lease_id, None)
                note_settled(lease_id)
                self._to_give_back.append(Settlement([lease_id], Outcome.REQUEUE, fate))
        if gone:
            if not self._is_retiring:
                session.options.logger.warning("%d messages waited here too long: they are delivered again", len(gone))
            if not self.stream.is_over:  # shows the server that this consumer lives
                self._to_give_back.append(Settlement(gone, Outcome.REQUEUE, untouched=True))

    def hand_out(self, delivered: Delivered) -> M:
        """Return a delivered message that goes back when its `Message` is gone, see `Finalizer`."""
        if not (lease_id := delivered.lease_id):
            return self._session.message.wrap(delivered, self.queue, self)
        self.unsettled[lease_id] = None
        return self._session.message.wrap(delivered, self.queue, self, Finalizer(self, lease_id))

    def ack_soon(self, lease_id: str) -> None:
        """Ack a lease in the background. The caller has removed it from `unsettled`."""
        self._settled.append(lease_id)
        self._acks.begun += 1
        self._session.connected().ack_soon(lease_id, self._acks.answered)

    async def give_back(self) -> None:
        """Give back the messages whose settlement failed. If that fails too, end the stream."""
        if not self._to_give_back:
            return
        settlements, self._to_give_back = self._to_give_back, []
        options = self._session.options
        try:
            for settlement in settlements:
                await self._session.connected().settle(settlement, min(options.timeout, CLOSE_SECONDS))
        except Closed:
            raise
        except StiQueueError as error:
            options.logger.warning("messages are given back without a delay: %s", error)
            self.stream.cancel()

    def settle(self, message: Message, settlement: Settlement) -> Any:
        """Settle `message`."""
        return self._session.concurrency.run(self.settled(message, settlement))

    def hand_over(self, message: Message, msg: Body, **options: Any) -> Any:
        """Ack `message` and enqueue `msg` in one step."""
        return self._session.concurrency.run(self.handed_over(message, msg, **options))

    def retry_delay(self, message: Message) -> float:
        """Return the client's back-off for `message`."""
        return self._session.options.retry_delay_of(message)

    async def settled(self, message: Message, settlement: Settlement) -> bool:
        """Settle `message`; return whether its lease was held."""
        session, lease_id = self._session, message.lease_id
        is_last = settlement.outcome is not Outcome.EXTEND
        try:
            if not lease_id:  # delivered with no_ack: the server has forgotten it
                check_settlement(settlement)
                return False
            if is_last:
                self._begin(lease_id)
            if is_last and self.ends:
                settlement = settlement._replace(close_stream=True)
            stale = await session.connected().settle(settlement, session.options.timeout)
        except BaseException:
            if is_last:
                self._fail(message, is_done=settlement.outcome is Outcome.ACK)
            raise
        if is_last and (self.ends or not stale):
            self._end(lease_id)
        return not stale

    async def handed_over(
        self, message: Message, msg: Body, by: Session[Any] | None = None, splits: bool = False, **options: Any
    ) -> int:
        """Ack `message` and enqueue `msg` by the client `by`, in one step; return the new id. See `hand_over`."""
        by = by or self._session
        if not message.lease_id and splits:
            return await hand_over(by, *successor(by, msg, message, **options), splits)
        if not message.lease_id:
            raise LeaseStale("the message was delivered without a lease (ack_required=False)")
        try:
            batch, timeout = successor(by, msg, message, **options)  # checks before anything changes
            patience = Patience.of(timeout)
            self._begin(message.lease_id)
            # The ack in `enq` would bring another message, which nobody asked for.
            # The server knows whether a stale lease matters: a repetition is answered as the first time.
            if self.ends and await self.finish([message.lease_id], timeout) and splits:
                raise LeaseStale(f"message {message.id} of {message.queue} is no longer held")
            new_id = await hand_over(by, batch, patience.left, splits)
        except BaseException:
            self._fail(message)
            raise
        self._end(message.lease_id)
        return new_id

    async def finish(self, lease_ids: Sequence[str], timeout: float) -> list[str]:
        """Let the stream end once it holds nothing; return the stale ones of `lease_ids`. See `Stream.finish`."""
        self.is_ending = True
        return list(lease_ids) if self.stream.is_over else await self.stream.finish(lease_ids, timeout)

    def retire(self) -> list[str]:
        """Hand out no more messages; return the leases that were. From any thread."""
        self._is_retiring = True
        return list(self.unsettled)

    def is_unsettled(self, message: Message) -> bool:
        """Whether `message` was handed out and is not settled."""
        return message.lease_id in self.unsettled

    def _begin(self, lease_id: str) -> None:
        self.is_ending |= self.ends
        if lease_id in self.unsettled:
            self.unsettled[lease_id] = SETTLING

    def _fail(self, message: Message, is_done: bool = False) -> None:
        """Note that settling `message` failed. Unless it `is_done`, an implicit ack must not follow."""
        if message.lease_id in self.unsettled:
            goes_back = self._session.options.auto_ack and not is_done
            self.unsettled[message.lease_id] = self.retry_delay(message) if goes_back else None

    def _end(self, lease_id: str) -> None:
        """Note that a lease is settled."""
        self._settled.append(lease_id)
        if self.unsettled.pop(lease_id, GONE) != GONE and self.ends:
            self._session.drop(self)

    def part(self, ack: bool) -> Parting:
        """Give up all leases; return how the server is to settle them.

        Args:
            ack: ack the messages that were handed out, instead of giving them back.
        """
        unsettled, ack = dict(self.unsettled), ack and self._is_acked_by_close
        self.forget()
        acked = [lease_id for lease_id, fate in unsettled.items() if fate is None] if ack else []
        back = [lease_id for lease_id, fate in unsettled.items() if fate is not None or not ack]
        # With one message in work and the others behind it, the end of the stream says enough.
        knows = self._session.options.auto_ack and bool(back)
        if self._is_single or knows:
            return Parting(acked, [], [])
        return Parting(acked, back, [*unsettled, *self._settled])

    async def quit(self) -> None:
        """Give back all messages; those not handed out count no attempt. The caller ends the stream."""
        session = self._session
        try:
            await self.flush()
            await self.give_back()
            parting = self.part(ack=False)
            if not self.stream.is_over:
                await parting.tell(session.connected(), min(session.options.timeout, CLOSE_SECONDS))
        except StiQueueError as error:
            session.options.logger.debug("what was sent ahead is given back by the end of the stream: %s", error)

    def forget(self) -> None:
        """Give up all leases, without telling the server."""
        self.unsettled.clear()
        self.ahead.clear()
        self.kept = None

    def abandon(self) -> None:
        """Give back the last message handed out, which nobody can settle. For finalizers: no lock, no waiting."""
        self._is_abandoned = True
        if self.ends:
            self._session.part_with(self, self._quit)

    def orphan(self) -> None:
        """Give back the messages ahead, which no thread will take. For finalizers: no lock, no waiting."""
        self.ends = True
        self._session.part_with(self, self.give_back_ahead if self.unsettled and not self._is_abandoned else self._quit)

    def fail(self) -> None:
        """Give back all messages: the task that took them failed. Does not wait."""
        if self._is_single:
            self._session.drop(self)
        else:
            self._session.part_with(self, self._quit)

    async def leave(self) -> None:
        """End the stream once its acks are answered; unsettled messages go back."""
        try:
            await self.flush()
        finally:
            self._session.drop(self)

    async def _quit(self) -> None:
        await self.quit()
        self._session.drop(self)

    async def give_back_ahead(self, finishes: bool = True) -> None:
        """Give back the messages `ahead`, from any thread; the stream lives until those handed out are settled."""
        lease_ids = []
        with suppress(IndexError):
            while True:  # one by one: the loop may take some of them meanwhile
                lease_ids.append(self.ahead.popleft().lease_id)
        with suppress(StiQueueError):  # the end of the stream gives them back
            if finishes:
                await self.finish(list(self.unsettled), CLOSE_SECONDS)
            if any(lease_ids):
                back = Settlement(lease_ids, Outcome.REQUEUE, untouched=True)
                await self._session.connected().settle(back, CLOSE_SECONDS)
