"""The exit codes of the command, and the code of each error."""

from __future__ import annotations

import enum

from stiqueue import errors


class ExitCode(enum.IntEnum):
    """The outcome of a command."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOTHING = 3
    UNAVAILABLE = 4
    FULL = 5
    DENIED = 6
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.FAILED: "an error; one line on stderr says which",
    ExitCode.USAGE: "a wrong option, or a value or message out of range; nothing was changed",
    ExitCode.NOTHING: "no message, or none within --timeout",
    ExitCode.UNAVAILABLE: "the server cannot be reached",
    ExitCode.FULL: "the server is at a limit, such as a full queue",
    ExitCode.DENIED: "the server requires a token, or one with more rights",
    ExitCode.INTERRUPTED: "Ctrl-C",
    ExitCode.BROKEN_PIPE: "the reader of the output went away",
    ExitCode.TERMINATED: "SIGTERM",
}

_CODES: tuple[tuple[type[Exception], ExitCode], ...] = (
    (errors.Unavailable, ExitCode.UNAVAILABLE),
    (errors.InvalidRequest, ExitCode.USAGE),
    (errors.LimitReached, ExitCode.FULL),
    (errors.AccessDenied, ExitCode.DENIED),
)


def exit_code(error: Exception) -> ExitCode:
    """Return the exit code for `error`."""
    if isinstance(error, errors.InvalidRequest) and not error.is_refusal:
        return ExitCode.FAILED  # part of what was asked for was done, or may have been
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.FAILED)
