"""Copying any number of messages out of a server and into one: `export`, `import` and `move`."""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

from stiqueue.client.base import BaseClient, session_of
from stiqueue.client.waiting.threads import run
from stiqueue.errors import NotSupported
from stiqueue.message import Batch, Delivered, PeekedMessage, PeekQuery, Receipt, State


def copied(client: BaseClient, queue: str) -> Iterator[PeekedMessage]:
    """Iterate over all messages of a queue as they would be delivered if none were leased or delayed.

    Keeps leased and delayed messages in memory, but not ready ones. Looks at the leased and delayed ones again in the
    end, for messages that were ready further back. A message that consumers keep taking and giving back may still be
    missed.

    Raises:
        Unavailable: the connection is lost.
    """
    seen: set[int] = set()
    held = [
        message for state in (State.LEASED, State.DELAYED) for message in looked(client, PeekQuery(queue, state=state))
    ]
    for message in heapq.merge(sorted(held, key=_place), looked(client, PeekQuery(queue)), key=_place):
        if message.id not in seen:
            seen.add(message.id)
            yield message
    late = [
        message for state in (State.LEASED, State.DELAYED) for message in looked(client, PeekQuery(queue, state=state))
    ]
    yield from sorted((message for message in late if message.id not in seen), key=_place)


def expire_times(client: BaseClient, queue: str, leased: Sequence[Delivered]) -> dict[int, int]:
    """Return when the ttls of leased messages run out, in ms since 1970, by message; `Deq` does not tell."""
    found: dict[int, int] = {}
    missing = {message.id for message in leased}
    with closing(looked(client, PeekQuery(queue, 0, min(missing) - 1, State.LEASED))) as messages:
        for message in messages:
            if message.id in missing:
                missing.remove(message.id)
                if message.expire_time_ms:
                    found[message.id] = message.expire_time_ms
                if not missing:
                    break
    return found


def put(client: BaseClient, batch: Batch, flat: bool = False) -> Receipt:
    """Enqueue a batch, all or nothing; one whose `request_id` is known enqueues nothing and says so.

    With `flat`, without its priority.

    Raises:
        InvalidRequest: it is too large.
        NotSupported: the server cannot have such messages.
        QueueFull: there is no room.
        Unavailable: the server stayed away for the client's `timeout`.
    """
    if flat:
        batch = batch._replace(priority=0)
    try:
        return run(session_of(client).connected().enq(batch, client.timeout))
    except NotSupported as error:
        if not batch.priority:
            raise
        raise error.told_as(f"{error}; --flat drops priorities", is_half_done=False) from error


def looked(client: BaseClient, query: PeekQuery) -> Generator[PeekedMessage, None, None]:
    """Iterate over the messages that a look finds; it ends where the loop does.

    Raises:
        Unavailable: the connection is lost.
    """
    look = session_of(client).connected().look(query)
    try:
        while (messages := run(look.next())) is not None:
            yield from messages
    finally:
        look.cancel()


def _place(message: PeekedMessage) -> tuple[int, int]:
    """Return a key that sorts messages in the order of delivery."""
    return -message.priority, message.id
