"""The queue `<queue>.moving`, in which messages wait while they are moved to another server.

They are delayed for as long as a server allows, so that no consumer gets them, and are taken by their ids: then a
delivery counts as no attempt, and neither a pause nor `max_leased` holds it up.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

from stiqueue.client.base import BaseClient, session_of
from stiqueue.client.copy import looked
from stiqueue.client.feed import Feed
from stiqueue.client.transport import Stream
from stiqueue.client.waiting.threads import run
from stiqueue.errors import Unavailable
from stiqueue.limits import MAX_DELAY, MAX_PREFETCH_BYTES, MAX_TTL, suffixed
from stiqueue.message import STAGING_HEADER, Batch, Counts, Delivered, PeekQuery, State, Subscription

STAGING_SUFFIX = ".moving"
"""The end of the name of the queue in which messages wait while they are moved."""
NAME = "stiqueue move"
OTHERS_SECONDS = 15.0
"""How long the server may take to notice that another move has died."""
POLL_SECONDS = 0.1


def staging_queue(name: str) -> str:
    """Return the name of the queue in which messages of the queue `name` wait while they are moved."""
    return suffixed(name, STAGING_SUFFIX)


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
        """Return the properties of a staged message before staging."""
        headers = dict(message.headers)
        _, expire_ms, key, unique_key, *_ = [*headers.pop(STAGING_HEADER, "").split(" "), "", "", ""]
        return cls(message.priority, headers, int(expire_ms or 0), unquote(key), unquote(unique_key))


class Staging:
    """The staged messages of one queue. For one thread."""

    def __init__(self, client: BaseClient, queue: str) -> None:
        """Keep messages in `queue`, see `staging_queue`."""
        self.queue = queue
        self._client = client
        self._presence: Stream | None = None
        """A subscription that is given nothing: it tells other moves that this one is at work."""

    def await_others(self) -> None:
        """Wait until a dead move has left the queue.

        Raises:
            Unavailable: another move is at work.
        """
        give_up = time.monotonic() + OTHERS_SECONDS
        while self.counts().consumers:
            if time.monotonic() > give_up:
                raise Unavailable(f"another move is at work: {self.queue} has a consumer")
            time.sleep(POLL_SECONDS)

    def leave(self) -> None:
        """Be no consumer any more, until the next `add`."""
        if self._presence is not None:
            self._presence.cancel()

    def counts(self) -> Counts:
        """Return the counts of the queue."""
        (counts,) = run(session_of(self._client).connected().counts([self.queue], self._client.timeout))
        return counts

    def add(self, kind: Kind, messages: Sequence[Delivered]) -> Sequence[int]:
        """Enqueue leased messages here and ack them where they were, in one step; return their ids here.

        Raises:
            LeaseStale: one of them is no longer held.
        """
        mark = f"{uuid.uuid4().hex} {kind.mark}"  # shared with no other group
        batch = Batch(
            self.queue,
            [message.body for message in messages],
            f"stage-{uuid.uuid4().hex}",
            kind.priority,
            MAX_DELAY,
            MAX_TTL,  # else a ttl in the settings of queues might apply
            kind.headers | {STAGING_HEADER: mark},
            [message.lease_id for message in messages],
        )
        transport = session_of(self._client).connected()
        receipt = run(transport.enq(batch, self._client.timeout))
        if self._presence is None or self._presence.is_over:
            self._presence = transport.subscribe(Subscription(self.queue, consumer=NAME))
        return range(receipt.first_id, receipt.first_id + receipt.count)

    def groups(self) -> list[list[int]]:
        """Return the ids of each group that is here, in the order in which they came."""
        found: dict[str, list[int]] = {}
        for message in looked(self._client, PeekQuery(self.queue, state=State.ALL)):
            if (mark := message.headers.get(STAGING_HEADER)) is not None:
                found.setdefault(mark, []).append(message.id)
        return sorted(map(sorted, found.values()))

    def leased(self, ids: Sequence[int], at_least: int) -> Iterator[list[Delivered]]:
        """Lease messages by `ids`; yield `at_least` so many that one stream holds, for the caller to ack.

        Ends when none is left but those whose lease ended before the ack.

        Raises:
            Unavailable: the server stayed away for the client's timeout, or somebody else holds some of them.
        """
        asked = Subscription(self.queue, len(ids), MAX_PREFETCH_BYTES, consumer=NAME, ids=ids)
        give_up = time.monotonic() + OTHERS_SECONDS
        while True:
            feed = Feed(session_of(self._client), asked)
            held: dict[int, Delivered] = {}
            stream = None
            try:
                while (messages := run(feed.next())) is not None and not _others(feed):
                    if feed.stream is not stream:  # the messages of the previous stream have gone back
                        stream = feed.stream
                        held.clear()
                    held |= {message.id: message for message in messages}
                    if len(held) >= at_least:
                        yield list(held.values())
                        held.clear()
                if not _others(feed):
                    return
            finally:
                run(feed.leave())
            # Perhaps by a stream of this move: one whose connection was lost, which the server has not missed yet, or
            # `_presence`, if somebody made a message ready.
            self.leave()
            if time.monotonic() > give_up:
                raise Unavailable(f"another consumer holds messages of {self.queue}, which are of a move")
            time.sleep(POLL_SECONDS)


def _others(feed: Feed) -> bool:
    """Whether others hold some of the messages that the feed asked for by their ids."""
    return feed.stream is not None and bool(feed.stream.leased_ids)
