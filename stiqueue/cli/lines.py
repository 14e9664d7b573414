"""Splits a byte stream into messages, such as lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from stiqueue.client.enqueue import BATCH_MESSAGES
from stiqueue.client.options import BATCH_BYTES
from stiqueue.errors import InvalidRequest

CHUNK_BYTES = BATCH_BYTES // 2
LARGEST_BYTES = 1 << 30
"""The largest message to read: no server accepts a larger one."""


class Readable(Protocol):
    """A stream that returns the available bytes and blocks only if there are none."""

    def read1(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes; b"" at the end."""
        ...


def read_batches(stream: Readable, separator: bytes) -> Iterator[list[bytes]]:
    """Iterate over the messages between separators, in batches of one request each.

    A batch has the messages that have arrived: a fast writer fills its batches, and a slow writer's messages go out at
    once. Drops the separators; the last message needs none.

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
    """Return the whole stream as one message.

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
