"""The messages in a stream of bytes, such as lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from stiqueue.enqueueing import BATCH_MESSAGES
from stiqueue.errors import InvalidRequest
from stiqueue.options import BATCH_BYTES

CHUNK_BYTES = BATCH_BYTES // 2
LARGEST_BYTES = 1 << 30
"""Where reading one message ends: no server takes a larger one."""


class Readable(Protocol):
    """A stream that returns what there is, waiting only when there is nothing."""

    def read1(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes; none at the end."""
        ...


def read_batches(stream: Readable, separator: bytes) -> Iterator[list[bytes]]:
    """Iterate over the messages between separators, in batches of what has come in, each for one request.

    So a fast writer fills its batches, and what a slow one writes is passed on at once. The separators are left out;
    the last message may do without.

    Raises:
        InvalidRequest: a message is larger than 1 GiB.
    """
    begun: list[bytes] = []
    begun_bytes = 0
    while chunk := stream.read1(CHUNK_BYTES):
        first, *others = chunk.split(separator)
        begun.append(first)
        begun_bytes += len(first)
        if begun_bytes > LARGEST_BYTES:
            raise InvalidRequest(f"a message of more than {LARGEST_BYTES:,} bytes", "MESSAGE_TOO_LARGE")
        if others:
            whole = b"".join(begun)
            begun, begun_bytes = [others[-1]], len(others[-1])
            others[-1:] = []
            if len(whole) > CHUNK_BYTES:
                yield [whole]
            else:
                others.insert(0, whole)
            for start in range(0, len(others), BATCH_MESSAGES):
                yield others[start : start + BATCH_MESSAGES]
    if begun_bytes:
        yield [b"".join(begun)]


def read_whole(stream: Readable) -> bytes:
    """Return everything as one message.

    Raises:
        InvalidRequest: it is larger than 1 GiB.
    """
    chunks: list[bytes] = []
    total = 0
    while chunk := stream.read1(CHUNK_BYTES):
        chunks.append(chunk)
        total += len(chunk)
        if total > LARGEST_BYTES:
            raise InvalidRequest(f"a message of more than {LARGEST_BYTES:,} bytes", "MESSAGE_TOO_LARGE")
    return b"".join(chunks)
