"""Moves the messages of a queue to another server, for `stiqueue move`, with ordinary RPCs.

A group of messages goes in four steps. Each is one request, and each can be repeated:

1. The target is asked whether it would accept such messages, so that it refuses them before they are staged.
2. The group is *staged*: enqueued in the queue ``<queue>.moving`` of the same server and acked where it was, in one
   commit. From then on no consumer gets it, and a header says which messages belong together.
3. It is enqueued at the target, under a request id derived from the staged messages.
4. The staged messages are acked.

If a move dies between 2 and 4, the next move finds the group and sends it under the same request id; a server that has
it already enqueues nothing. So no message is lost, and none is doubled while the other server remembers the request
id.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from stiqueue.client.base import BaseClient, session_of
from stiqueue.client.copy import expire_times, put
from stiqueue.client.enqueue import BATCH_MESSAGES
from stiqueue.client.feed import Feed
from stiqueue.client.options import BATCH_BYTES
from stiqueue.client.session import CLOSE_SECONDS
from stiqueue.client.staging import NAME, STAGING_SUFFIX, Kind, Staging, staging_queue
from stiqueue.client.waiting.threads import run
from stiqueue.errors import (
    AccessDenied,
    InvalidRequest,
    LeaseStale,
    LimitReached,
    NotSupported,
    StiQueueError,
    Unauthenticated,
)
from stiqueue.limits import MAX_TTL, headers_size, queue_name
from stiqueue.message import (
    STAGING_HEADER,
    Batch,
    Counts,
    Delivered,
    Outcome,
    Settlement,
    Subscription,
)

NO_LEASE = "stiqueue-move-asks"
"""A lease that nobody holds: a server refuses to ack it, and so enqueues nothing."""


class Move:
    """Moves the ready messages of a queue of `source` to a queue of `target`. For one thread."""

    def __init__(
        self, source: BaseClient, target: BaseClient, queue: str, to_queue: str = "", flat: bool = False
    ) -> None:
        """Describe the move; nothing is sent before `run`.

        Args:
            source: a client of the server that has the messages.
            target: a client of the server that is to have them.
            queue: the queue that they are in.
            to_queue: the queue that they are to be in; default: of the same name.
            flat: leave out priorities; the messages keep the order in which they are moved.

        Raises:
            InvalidRequest: the name of a queue is none.
        """
        self.moved = self.expired = 0
        self.resumed = 0
        """The number of messages that an earlier, interrupted move had staged."""
        self.on_moved: Callable[[int], None] = lambda number: None
        """Called with a number of messages once the target has them and the source no longer does."""
        self.staged = 0
        """The number of messages that are staged now; after an error they wait for the next run."""
        self.staging = Staging(source, staging_queue(queue_name(queue)))
        self._source, self._target = source, target
        self._queue = queue_name(queue)
        self._to = queue_name(to_queue or queue)
        self._flat = flat
        self._accepted: dict[tuple[bool, bool, bool], int] = {}
        """The largest message that the target would accept: with a priority, a key, a unique key or without."""

    def run(self, wait: float = 0.0) -> Counts:
        """Move until no message was ready for `wait` seconds; return the counts of those left, leased or delayed.

        Raises:
            Unavailable: a server stayed away for the timeout of its client, or another move of the queue is at work.
            LimitReached: the target has no room.
            NotSupported, InvalidRequest: the target does not accept such messages.
        """
        stagings = [self.staging]
        if self._queue.endswith(STAGING_SUFFIX):  # of an earlier move, which is not to be run again
            stagings.append(Staging(self._source, self._queue))
        taken = Feed(
            session_of(self._source), Subscription(self._queue, BATCH_MESSAGES, wait=wait, consumer=NAME, concurrency=1)
        )
        try:
            self._ask(Kind(0, {}, 0), b"")  # whether it is there, before anything waits for it
            for staging in stagings:
                self._finish_earlier(staging)
            while (messages := run(taken.next())) is not None:
                try:
                    self._move(messages)
                except StiQueueError:
                    self._give_back(messages)
                    raise
        finally:
            run(taken.leave())
            self.staging.leave()
        (counts,) = run(session_of(self._source).connected().counts([self._queue], self._source.timeout))
        return counts

    def _finish_earlier(self, staging: Staging) -> None:
        """Move the messages that a dead move has staged."""
        staging.await_others()
        groups = staging.groups()
        self.resumed += sum(map(len, groups))
        self.staged += self.resumed
        for ids in groups:
            self._finish(staging, ids)

    # -- steps 1 and 2 -------------------------------------------------------------------------------------------------

    def _groups(self, messages: Sequence[Delivered]) -> Iterator[tuple[Kind, list[Delivered]]]:
        """Divide leased messages into groups that one request can enqueue."""
        expire_ms = expire_times(self._source, self._queue, messages)
        group: list[Delivered] = []
        kind, size = Kind(0, {}, 0), 0
        for message in messages:
            end = expire_ms.get(message.id, 0)
            own = Kind(message.priority, dict(message.headers), end, message.key, message.unique_key)
            full = len(group) >= BATCH_MESSAGES or own.unique_key or size + len(message.body) > BATCH_BYTES
            if group and (full or own != kind):
                yield kind, group
                group, size = [], 0
            kind = own
            group.append(message)
            size += len(message.body)
        if group:
            yield kind, group

    def _move(self, messages: Sequence[Delivered]) -> None:
        staged: list[int] = []

        def finish() -> None:
            self._finish(self.staging, staged)
            staged.clear()

        for kind, group in self._groups(messages):
            try:
                self._ask(kind, max((message.body for message in group), key=len))
            except (InvalidRequest, NotSupported):
                finish()
                raise
            try:
                staged += self.staging.add(kind, group)
            except LeaseStale:
                pass  # the connection was lost meanwhile: they come again
            except (InvalidRequest, LimitReached, NotSupported) as error:
                if not error.is_refusal:
                    raise  # an earlier try may have staged them
                # No room for one more message, or a server that cannot enqueue and ack in one step.
                finish()
                self._move_unstaged(kind, group)
            else:
                self.staged += len(group)
        finish()

    def _give_back(self, messages: Sequence[Delivered]) -> None:
        """Give back those of `messages` that are not staged, and end their stream; no attempt counts."""
        lease_ids = [message.lease_id for message in messages]
        back = Settlement(lease_ids, Outcome.REQUEUE, close_stream=True, untouched=True)
        with suppress(StiQueueError):  # then the end of the stream gives them back
            run(session_of(self._source).connected().settle(back, CLOSE_SECONDS))

    def _ask(self, kind: Kind, body: bytes) -> None:
        """Ask the target whether it would accept a message, unless it would accept a larger one of its kind.

        Raises:
            NotSupported, InvalidRequest: it would not.
            Unavailable: it stayed away.
        """
        features = bool(kind.priority), bool(kind.key), bool(kind.unique_key)
        size = len(body) + headers_size(kind.headers)
        if size <= self._accepted.get(features, -1):
            return
        try:
            self._enqueue(kind, Batch(self._to, [body], ack_lease_ids=[NO_LEASE]))
        except LeaseStale:
            pass  # it has no other objection
        except LimitReached:
            return  # it may have room later
        except Unauthenticated:
            raise
        except AccessDenied:
            return  # without the right to ack there, it does not say
        except NotSupported as error:
            if error.reason != "NO_ACK_IN_ENQ":  # which a cluster checks last
                raise
        self._accepted[features] = size

    def _move_unstaged(self, kind: Kind, group: list[Delivered]) -> None:
        """Move messages one by one, under request ids derived from them."""
        for message in group:
            what = f"{self._queue} {message.id} {message.enqueue_time_ms} {message.body!r}"
            is_there = self._put(kind, [message.body], _digest([what]))
            self._count(len(self._ack([message])), is_there)

    # -- steps 3 and 4 ------------------------------------------------------------------------------------------------

    def _finish(self, staging: Staging, ids: Sequence[int]) -> None:
        """Copy staged groups to the target, and ack them."""
        left = list(ids)
        copied: dict[str, bool] = {}
        """By mark: whether the target has the group; False: it had expired."""
        came = True
        while left and came:
            came = False
            for messages in staging.leased(left, 1 if copied else len(left)):
                came = True
                try:
                    self._copy(messages, copied)
                finally:  # those that were copied before an error
                    gone = self._ack_copied(messages, copied)
                    left = [each for each in left if each not in gone]
        if copied:  # acked by a request whose answer was lost
            self.staged -= len(left)
            self._count(len(left), True)

    def _copy(self, messages: Sequence[Delivered], copied: dict[str, bool]) -> None:
        """Enqueue groups at the target, except those that are `copied` already."""
        groups: dict[str, list[Delivered]] = {}
        for message in messages:
            groups.setdefault(_mark(message), []).append(message)
        for mark, group in groups.items():
            if mark not in copied:
                request_id = _digest([mark, *(str(message.id) for message in group)])
                bodies = [message.body for message in group]
                copied[mark] = self._put(Kind.of_staged(group[0]), bodies, request_id)

    def _ack_copied(self, messages: Sequence[Delivered], copied: dict[str, bool]) -> set[int]:
        """Ack staged messages, those that are `copied`; return the ids of those that were still leased to us."""
        ready = [message for message in messages if _mark(message) in copied]
        acked = self._ack(ready) if ready else []
        there = sum(copied[_mark(message)] for message in acked)
        self.staged -= len(acked)
        self._count(there, True)
        self._count(len(acked) - there, False)
        return {message.id for message in acked}

    def _put(self, kind: Kind, bodies: Sequence[bytes], request_id: str) -> bool:
        """Enqueue at the target, under one request id; return False, and do nothing, if they have expired."""
        # Behind a slow clock more may seem to be left than any message may have.
        left = min(MAX_TTL, kind.expire_ms / 1000 - time.time()) if kind.expire_ms else None
        if left is not None and left <= 0:
            return False
        try:
            self._enqueue(kind, Batch(self._to, bodies, request_id, ttl=left))
        except InvalidRequest as error:
            if error.reason != "MESSAGE_TOO_LARGE" or not error.is_refusal or len(bodies) == 1:
                raise
            half = len(bodies) // 2  # this server takes smaller requests than the other
            self._put(kind, bodies[:half], f"{request_id}0")
            self._put(kind, bodies[half:], f"{request_id}1")
        return True

    def _enqueue(self, kind: Kind, batch: Batch) -> None:
        """Enqueue a batch of messages of one kind at the target."""
        batch = batch._replace(priority=kind.priority, headers=kind.headers, key=kind.key, unique_key=kind.unique_key)
        put(self._target, batch, self._flat)

    def _ack(self, messages: Sequence[Delivered]) -> list[Delivered]:
        """Ack messages of the source; return those that were still leased to us."""
        settlement = Settlement([message.lease_id for message in messages])
        stale = set(run(session_of(self._source).connected().settle(settlement, self._source.timeout)))
        return [message for message in messages if message.lease_id not in stale]

    def _count(self, number: int, is_there: bool) -> None:
        if is_there:
            self.moved += number
        else:
            self.expired += number
        if number:
            self.on_moved(number)


def _mark(message: Delivered) -> str:
    """Return the header that a staged message shares with its group."""
    return message.headers[STAGING_HEADER]


def _digest(parts: Iterable[str]) -> str:
    """Return a request id derived from `parts`."""
    return f"move-{hashlib.blake2b(' '.join(parts).encode(), digest_size=16).hexdigest()}"
