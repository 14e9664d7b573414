"""Dead letters: messages set aside because nobody could process them."""

from __future__ import annotations

from stiqueue.limits import headers_size
from stiqueue.message import DEAD_ATTEMPTS_HEADER, DEAD_QUEUE_HEADER, DEAD_REASON_HEADER, DEAD_SUFFIX
from stiqueue.rules.entry import Entry, Properties


def dead_letter(entry: Entry, queue: str, reason: str, new_id: int) -> Entry:
    """Return the dead letter of a message of `queue`: the same body and headers, plus headers that say why.

    A dead letter that is rejected again keeps where it came from. It keeps its key, for the order in which it may be
    redriven, and has no unique key: another message may have taken that.
    """
    why = {DEAD_QUEUE_HEADER: queue, DEAD_ATTEMPTS_HEADER: str(entry.attempt), DEAD_REASON_HEADER: reason}
    if queue.endswith(DEAD_SUFFIX) and DEAD_QUEUE_HEADER in entry.properties.headers:
        why = {DEAD_REASON_HEADER: reason}
    headers = {**entry.properties.headers, **why}
    old = entry.properties
    size = headers_size(headers)
    return Entry(new_id, entry.body, 0, Properties(old.enqueue_time_ms, old.priority, headers, size, key=old.key))
