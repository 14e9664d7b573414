"""A shell command that handles messages."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess

from stiqueue.message import Message

HEADER_PREFIX = "STIQUEUE_HEADER_"


class ShellCommand:
    """Runs a shell command once per message, with the body on stdin and the attributes in the environment."""

    def __init__(self, command: str, environment: dict[str, str]) -> None:
        """Run `command` with `environment` in addition to the message's variables."""
        self._command = command
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, message: Message) -> int:
        """Run the command for `message`; return its exit status, negative if a signal ended it."""
        # In a new session, so that Ctrl-C stops the loop after this message, not the command in the middle of it.
        self._process = subprocess.Popen(
            self._command,
            shell=True,
            stdin=subprocess.PIPE,
            env=os.environ | self._environment | message_environment(message),
            start_new_session=True,
        )
        try:
            self._process.communicate(message)
            return self._process.returncode
        finally:
            self._process = None

    def kill(self, number: int) -> None:
        """Send a signal to the running command and its children."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, number)
            else:
                process.terminate()


def message_environment(message: Message) -> dict[str, str]:
    """Return the environment variables that describe a message."""
    headers = message.headers
    environment = {
        "STIQUEUE_ID": str(message.id),
        "STIQUEUE_ATTEMPT": str(message.attempt),
        "STIQUEUE_QUEUE": message.queue,
        "STIQUEUE_PRIORITY": str(message.priority),
        "STIQUEUE_ENQUEUE_TIME_MS": str(message.enqueue_time_ms),
        "STIQUEUE_HEADERS": json.dumps(headers),
    }
    for key, value in headers.items():
        if "\0" not in value:
            environment[HEADER_PREFIX + re.sub(r"[^A-Z0-9_]", "_", key.upper(), flags=re.ASCII)] = value
    return environment


def status_text(status: int) -> str:
    """Return an exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
