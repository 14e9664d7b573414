"""Who may do what: the file of tokens, read again when it changes."""

from __future__ import annotations

import hashlib
import hmac
import logging
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path

from stiqueue.credential_files import FileWatch, warn_of_readers
from stiqueue.errors import InvalidRequest

MIN_TOKEN_LENGTH = 16
"""A shorter token could be found by trying."""


class Right(Enum):
    """What a token may be good for."""

    ENQ = "enq"
    DEQ = "deq"
    PEEK = "peek"
    ADMIN = "admin"
    """All of the others."""


@dataclass(frozen=True)
class Grant:
    """What the holder of one token may do."""

    digest: bytes
    """The SHA-256 of the token; the token itself is not kept."""
    rights: frozenset[Right]
    queues: tuple[str, ...]
    """Names, or patterns with * and ?."""

    def allows(self, right: Right, queue: str | None = None) -> bool:
        """Whether it has `right`, on `queue` if there is one in question."""
        if right not in self.rights and Right.ADMIN not in self.rights:
            return False
        return queue is None or any(fnmatchcase(queue, pattern) for pattern in self.queues)


class Tokens:
    """The tokens of one file. Used by the event loop alone.

    Each line has a token of at least 16 characters, its rights (of enq, deq, peek and admin, with commas between) and
    the queues they are for (names or patterns such as ``jobs.*``, with commas between; left out: all queues). What
    follows a # is a remark.
    """

    def __init__(self, path: str, logger: logging.Logger) -> None:
        """Read the file.

        Raises:
            InvalidRequest: it cannot be read, or a line is wrong; names the line, and shows nothing of a token.
        """
        self._path = Path(path)
        self._logger = logger
        self._watch = FileWatch(path)
        self._grants = _read(self._path)
        warn_of_readers("tokens", path, logger)

    def find(self, token: str) -> Grant | None:
        """Return what `token` is good for; None: it is unknown. Takes as long for any wrong token."""
        digest, found = _digest(token), None
        for grant in self._grants:
            if hmac.compare_digest(grant.digest, digest):
                found = grant
        return found

    def valid(self, grant: Grant) -> bool:
        """Whether `grant`, once found, stands as it was."""
        return grant in self._grants

    def refresh(self) -> bool:
        """Read the file again if it has changed; return whether it has. One that is wrong changes nothing."""
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
