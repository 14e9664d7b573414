"""The token file: tokens with their rights and queues, read again when it changes."""

from __future__ import annotations

import hashlib
import hmac
import logging
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path

from stiqueue.errors import InvalidRequest
from stiqueue.rules.policies import covers
from stiqueue.wire.credentials import FileWatch, warn_of_readers

MIN_TOKEN_LENGTH = 16
"""A shorter token could be guessed by brute force."""


class Right(Enum):
    """A right of a token."""

    ENQ = "enq"
    DEQ = "deq"
    PEEK = "peek"
    ADMIN = "admin"
    """Includes all others, and allows changing the settings of queues."""


@dataclass(frozen=True)
class Grant:
    """The rights of one token, and the queues they apply to."""

    digest: bytes
    """The SHA-256 of the token; the token itself is not kept."""
    rights: frozenset[Right]
    queues: tuple[str, ...]
    """Names, or patterns with * and ?."""

    @property
    def name(self) -> str:
        """The token's name in logs: the first 8 hex digits of its SHA-256."""
        return self.digest.hex()[:8]

    def allows(self, right: Right, queue: str | None = None) -> bool:
        """Whether the token has `right` on `queue`; for a pattern, on all queues that it matches; None: anywhere."""
        if right not in self.rights and Right.ADMIN not in self.rights:
            return False
        if queue is None:
            return True
        if "*" in queue:  # else fnmatch would take its * for a character of a name, which a ? matches
            return any(covers(pattern, queue) for pattern in self.queues)
        return any(fnmatchcase(queue, pattern) for pattern in self.queues)


class Tokens:
    """The tokens of one file. Not thread-safe: used by the event loop.

    Each line has a token of at least 16 characters, its rights (enq, deq, peek or admin, separated by commas) and its
    queues (names or patterns such as ``jobs.*``, separated by commas; default: all queues). A # begins a comment.
    """

    def __init__(self, path: str, logger: logging.Logger) -> None:
        """Read the file.

        Raises:
            InvalidRequest: the file cannot be read, or a line is wrong; names the line, and shows no part of a token.
        """
        self._path = Path(path)
        self._logger = logger
        self._watch = FileWatch(path)
        self._grants = _read(self._path)
        warn_of_readers("tokens", path, logger)

    def find(self, token: str) -> Grant | None:
        """Return the grant of `token`; None: the token is unknown. Takes equally long for every wrong token."""
        digest, found = _digest(token), None
        for grant in self._grants:
            if hmac.compare_digest(grant.digest, digest):
                found = grant
        return found

    def valid(self, grant: Grant) -> bool:
        """Whether `grant`, found earlier, is still in the file unchanged."""
        return grant in self._grants

    def refresh(self) -> bool:
        """Read the file again if it has changed; return whether it was. An invalid file changes nothing: False."""
        if not self._watch.has_changed():
            return False
        try:
            self._grants = _read(self._path)
        except InvalidRequest as error:
            self._logger.error("%s; the tokens stay as they were", error)
            return False
        self._logger.info("tokens: read %d from %s", len(self._grants), self._path)
        return True


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _read(path: Path) -> list[Grant]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidRequest(f"tokens: cannot read {path}: {why}", "BAD_OPTION") from error
    grants = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if words:
            try:
                grants.append(_grant(*words))
            except (TypeError, ValueError) as error:
                text = str(error) if isinstance(error, InvalidRequest) else "a line is TOKEN RIGHTS [QUEUES]"
                raise InvalidRequest(f"tokens: {path}, line {number}: {text}", "BAD_OPTION") from None
    if not grants:
        raise InvalidRequest(f"tokens: {path} has none, so that nobody could do anything", "BAD_OPTION")
    return grants


def _grant(token: str, rights: str, queues: str = "*") -> Grant:
    if len(token) < MIN_TOKEN_LENGTH:
        raise InvalidRequest(f"the token is shorter than {MIN_TOKEN_LENGTH} characters")
    known = {right.value for right in Right}
    given = rights.split(",")
    if not known.issuperset(given):
        raise InvalidRequest(f"the rights are {', '.join(sorted(known))}, with commas and no spaces between them")
    return Grant(_digest(token), frozenset(map(Right, given)), tuple(queues.split(",")))
