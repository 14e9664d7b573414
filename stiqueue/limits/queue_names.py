"""The names of queues, and the patterns that stand for several."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

from stiqueue.arguments import check_text, shown
from stiqueue.errors import InvalidRequest
from stiqueue.message import DEAD_SUFFIX

DEFAULT_QUEUE = "default"
MAX_NAME = 128
_HASH_BYTES = 4
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_PATTERN = re.compile(r"[A-Za-z0-9._*-]{1,128}", re.ASCII)


def queue_name(name: str) -> str:
    """Return the queue that `name` means."""
    if not isinstance(name, str):
        check_text("queue", name, "BAD_QUEUE_NAME", 'a name such as "jobs"')
    return _queue_name(name)


@lru_cache(1_000)
def _queue_name(name: str) -> str:
    if not name:
        return DEFAULT_QUEUE
    if not _NAME.fullmatch(name):
        shown = name if len(name) <= MAX_NAME else name[:MAX_NAME] + "..."
        raise InvalidRequest(f"queue: {shown!r} is not 1 to {MAX_NAME} of A-Z a-z 0-9 . _ -", "BAD_QUEUE_NAME")
    return name


def suffixed(name: str, suffix: str) -> str:
    """Return the name of a queue that belongs to the queue `name`: with `suffix`, at most 128 characters long.

    A name without room for the suffix is cut, and gets a hash of the whole, so that two queues never share another.
    """
    if len(name) + len(suffix) <= MAX_NAME:
        return name + suffix
    end = f"-{hashlib.blake2b(name.encode(), digest_size=_HASH_BYTES).hexdigest()}{suffix}"
    return name[: MAX_NAME - len(end)] + end


def dead_letter_queue(name: str) -> str:
    """Return the name of the queue for the dead letters of the queue `name`; of one for dead letters: itself."""
    return name if name.endswith(DEAD_SUFFIX) else suffixed(name, DEAD_SUFFIX)


def check_pattern(name: str) -> str:
    """Return the queue or pattern that `name` means.

    Raises:
        InvalidRequest: it is neither.
    """
    check_text("queue", name, "BAD_QUEUE_NAME", 'a name such as "jobs", or a pattern such as "mail.*"')
    if "*" not in name:
        return queue_name(name)
    if not _PATTERN.fullmatch(name):
        raise InvalidRequest(f"queue: {shown(name)} is not 1 to {MAX_NAME} of A-Z a-z 0-9 . _ - *", "BAD_QUEUE_NAME")
    return name
