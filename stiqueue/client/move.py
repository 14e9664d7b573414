"""Moves the messages of a queue to another server, for `stiqueue move`, with ordinary RPCs.

A group of messages goes in three steps. Each is one request, and each can be repeated:

1. It is *staged*: enqueued in the queue ``<queue>.moving`` of the same server and acked where it was, in one commit.
   From then on no consumer gets it, and a header says which messages belong together.
2. It is enqueued at the other server, under a request id derived from the staged messages.
3. The staged messages are acked.

If a move dies between 1 and 3, the next move finds the group and sends it under the same request id; a server that has
it already enqueues nothing. So no message is lost, and none is doubled while the other server remembers the request
id.
"""

from __future__ import annotations

import hashlib
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

from stiqueue.client.base import BaseClient, session_of
from stiqueue.client.enqueue import BATCH_MESSAGES
from stiqueue.client.feed import Feed
from stiqueue.client.options import BATCH_BYTES
from stiqueue.client.waiting.threads import run
from stiqueue.errors import InvalidRequest, LeaseStale, LimitReached, NotSupported, Unavailable
from stiqueue.limits import MAX_PREFETCH, MAX_PREFETCH_BYTES, MAX_TTL, queue_name, suffixed
from stiqueue.message import STAGING_HEADER, Batch, Counts, Delivered, PeekQuery, Settlement, State, Subscription

STAGING_SUFFIX = ".moving"
"""The end of the name of the queue in which messages wait while they are moved."""
NAME = "stiqueue move"
OTHERS_SECONDS = 15.0
"""How long the server may take to notice that another move has died."""
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Kind:
    """The properties that all messages of one request share."""

    priority: int
    headers: dict[str, str]
    expire_ms: int
    """When their ttl runs out, in ms since 1970; 0: never."""
    key: str = ""
    unique_key: str = ""

    @property
    def mark(self) -> str:
        """The header of a staged message: its end and its keys, which as real keys would make it wait for others."""
        return " ".join((str(self.expire_ms), quote(self.key), quote(self.unique_key)))

    @classmethod
    def of_staged(cls, message: Delivered) -> Kind:
        """Return the properties of a staged message before staging. A message from somebody else may have no mark."""
        headers = dict(message.headers)
        _, expire_ms, key, unique_key, *_ = [*headers.pop(STAGING_HEADER, "").split(" "), "", "", ""]
        return cls(message.priority, headers, int(expire_ms or 0), unquote(key), unquote(unique_key))


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
        self._source, self._target = source, target
        self._queue = queue_name(queue)
        self._to = queue_name(to_queue or queue)
        self._staging = suffixed(self._queue, STAGING_SUFFIX)
        self._flat = flat
        self._staged = Feed(
            session_of(source),
            Subscription(self._staging, MAX_PREFETCH, MAX_PREFETCH_BYTES, consumer=NAME, concurrency=1),
        )
        self._copied: set[int] = set()
        """Staged messages that the target has but whose acks came too late: the source delivers them again."""

    def run(self, wait: float = 0.0) -> Counts:
        """Move until no message was ready for `wait` seconds; return the counts of those left, leased or delayed.

        Raises:
            Unavailable: a server stayed away for the timeout of its client, or another move of the queue is at work.
            LimitReached: the target has no room.
            NotSupported: the target cannot have such messages.
        """
        taken = Feed(
            session_of(self._source), Subscription(self._queue, BATCH_MESSAGES, wait=wait, consumer=NAME, concurrency=1)
        )
        try:
            self._finish_earlier()
            while (messages := run(taken.next())) is not None:
                for kind, group in self._groups(messages):
                    self._move(kind, group)
        finally:
            run(taken.leave())
            run(self._staged.leave())
        return self._counts(self._queue)

    def _finish_earlier(self) -> None:
        """Move the messages that a dead move has left behind."""
        give_up = time.monotonic() + OTHERS_SECONDS
        while (counts := self._counts(self._staging)).consumers:
            if time.monotonic() > give_up:
                raise Unavailable(f"another move of {self._queue} is at work: {self._staging} has a consumer")
            time.sleep(POLL_SECONDS)
        self.resumed = counts.ready
        self._copy_staged(counts.ready)

    def _counts(self, queue: str) -> Counts:
        session = session_of(self._source)
        (counts,) = run(session.connected().counts([queue], self._source.timeout))
        return counts

    # -- step 1 -------------------------------------------------------------------------------------------------------

    def _groups(self, messages: Sequence[Delivered]) -> Iterator[tuple[Kind, list[Delivered]]]:
        """Divide leased messages into groups that one request can enqueue."""
        expire_ms = self._expire_times(messages)
        group: list[Delivered] = []
        kind, size = Kind(0, {}, 0), 0
        for message in messages:
            own = Kind(
                message.priority,
                dict(message.headers),
                expire_ms.get(message.id, 0),
                message.key,
                message.unique_key,
            )
            full = len(group) >= BATCH_MESSAGES or own.unique_key or size + len(message.body) > BATCH_BYTES
            if group and (full or own != kind):
                yield kind, group
                group, size = [], 0
            kind = own
            group.append(message)
            size += len(message.body)
        if group:
            yield kind, group

    def _expire_times(self, messages: Sequence[Delivered]) -> dict[int, int]:
        """Return when ttls run out, in ms since 1970, by message; `Deq` does not tell."""
        found: dict[int, int] = {}
        missing = {message.id for message in messages}
        look = session_of(self._source).connected().look(PeekQuery(self._queue, 0, min(missing) - 1, State.LEASED))
        try:
            while missing and (chunk := run(look.next())) is not None:
                found |= {each.id: each.expire_time_ms for each in chunk if each.id in missing and each.expire_time_ms}
                missing.difference_update(each.id for each in chunk)
        finally:
            look.cancel()
        return found

    def _move(self, kind: Kind, group: list[Delivered]) -> None:
        mark = {STAGING_HEADER: f"{uuid.uuid4().hex} {kind.mark}"}
        batch = Batch(
            self._staging,
            [message.body for message in group],
            f"stage-{uuid.uuid4().hex}",
            kind.priority,
            headers=kind.headers | mark,
            ack_lease_ids=[message.lease_id for message in group],
        )
        try:
            run(session_of(self._source).connected().enq(batch, self._source.timeout))
        except LeaseStale:
            return  # the connection was lost meanwhile: they come again
        except (InvalidRequest, LimitReached, NotSupported) as error:
            if not error.is_refusal:
                raise  # an earlier try may have staged them
            # No room for one more message, or a server that cannot enqueue and ack in one step.
            self._move_unstaged(kind, group)
        else:
            self._copy_staged(len(group))

    def _move_unstaged(self, kind: Kind, group: list[Delivered]) -> None:
        """Move messages one by one, under request ids derived from them."""
        for message in group:
            what = f"{self._queue} {message.id} {message.enqueue_time_ms} {message.body!r}"
            is_there = self._put(kind, [message.body], _digest([what]))
            self._count(self._ack([message]), is_there)

    # -- steps 2 and 3 ------------------------------------------------------------------------------------------------

    def _copy_staged(self, number: int) -> None:
        """Copy so many staged messages to the target, and ack them."""
        while number:
            for mark, group in _by_mark(self._next_staged(number)):
                number -= self._copy(mark, group)
        self._copied.clear()

    def _next_staged(self, number: int) -> Iterable[Delivered]:
        """Return `number` staged messages that one stream holds, so that groups are whole."""
        held: dict[int, Delivered] = {}
        stream = None
        while len(held) < number:
            messages = run(self._staged.next())
            if messages is None:
                raise Unavailable(f"the server does not deliver from {self._staging} any more")
            if self._staged.stream is not stream:  # the messages of the previous stream have gone back
                stream = self._staged.stream
                held.clear()
            held |= {message.id: message for message in messages}
        return held.values()

    def _copy(self, mark: str, group: list[Delivered]) -> int:
        """Copy one group; return how many of its messages are acked."""
        kind = Kind.of_staged(group[0])
        new = [message for message in group if message.id not in self._copied]
        is_there = True
        if new:
            request_id = _digest([mark, *(str(message.id) for message in new)])
            is_there = self._put(kind, [message.body for message in new], request_id)
            self._copied.update(message.id for message in new)
        acked = self._ack(group)
        self._count(acked, is_there)
        return acked

    def _put(self, kind: Kind, bodies: Sequence[bytes], request_id: str) -> bool:
        """Enqueue at the target, under one request id; return False, and do nothing, if they have expired."""
        # Behind a slow clock more may seem to be left than any message may have.
        left = min(MAX_TTL, kind.expire_ms / 1000 - time.time()) if kind.expire_ms else None
        if left is not None and left <= 0:
            return False
        priority = 0 if self._flat else kind.priority
        batch = Batch(self._to, bodies, request_id, priority, ttl=left, headers=kind.headers)
        batch = batch._replace(key=kind.key, unique_key=kind.unique_key)
        try:
            run(session_of(self._target).connected().enq(batch, self._target.timeout))
        except NotSupported as error:
            raise NotSupported(f"{error}{'; --flat moves without priorities' if priority else ''}") from error
        except InvalidRequest as error:
            if error.reason != "MESSAGE_TOO_LARGE" or not error.is_refusal or len(bodies) == 1:
                raise
            half = len(bodies) // 2  # this server takes smaller requests than the other
            self._put(kind, bodies[:half], f"{request_id}0")
            self._put(kind, bodies[half:], f"{request_id}1")
        return True

    def _ack(self, messages: Sequence[Delivered]) -> int:
        """Ack messages of the source; return how many were still leased to us."""
        settlement = Settlement([message.lease_id for message in messages])
        stale = run(session_of(self._source).connected().settle(settlement, self._source.timeout))
        return len(messages) - len(stale)

    def _count(self, number: int, is_there: bool) -> None:
        if is_there:
            self.moved += number
        else:
            self.expired += number
        self.on_moved(number)


def _by_mark(messages: Iterable[Delivered]) -> Iterator[tuple[str, list[Delivered]]]:
    """Divide staged messages into their groups. A message without a mark is a group of its own."""
    groups: dict[str, list[Delivered]] = {}
    for message in sorted(messages, key=lambda message: message.id):
        groups.setdefault(message.headers.get(STAGING_HEADER, f"{message.id}"), []).append(message)
    yield from groups.items()


def _digest(parts: Iterable[str]) -> str:
    """Return a request id derived from `parts`."""
    return f"move-{hashlib.blake2b(' '.join(parts).encode(), digest_size=16).hexdigest()}"
