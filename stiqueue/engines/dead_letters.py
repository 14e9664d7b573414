"""Dead letters: what a message becomes that cannot be worked on, and where it goes."""

from __future__ import annotations

from stiqueue.entry import Entry, Properties
from stiqueue.limits import MAX_NAME, headers_size
from stiqueue.message import DEAD_ATTEMPTS_HEADER, DEAD_QUEUE_HEADER, DEAD_REASON_HEADER, DEAD_SUFFIX


def dead_letter_queue(name: str) -> str:
    """Return the name of a queue's dead letter queue: its own for one that is a dead letter queue, else with a suffix.

    A name of more than 123 characters is cut to make room for the suffix.
    """
    return name if name.endswith(DEAD_SUFFIX) else name[: MAX_NAME - len(DEAD_SUFFIX)] + DEAD_SUFFIX


def dead_letter(entry: Entry, queue: str, reason: str, new_id: int) -> Entry:
    """Return the dead letter of a message of `queue`: the same body and headers, and why it is one.

    A dead letter that is rejected again keeps where it came from.
    """
    why = {DEAD_QUEUE_HEADER: queue, DEAD_ATTEMPTS_HEADER: str(entry.attempt), DEAD_REASON_HEADER: reason}
    if queue.endswith(DEAD_SUFFIX) and DEAD_QUEUE_HEADER in entry.properties.headers:
        why = {DEAD_REASON_HEADER: reason}
    headers = {**entry.properties.headers, **why}
    old = entry.properties
    return Entry(new_id, entry.body, 0, Properties(old.enqueue_time_ms, old.priority, headers, headers_size(headers)))
