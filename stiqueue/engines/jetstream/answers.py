"""Reads the cluster's answers: results, statuses and errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nats.aio.msg import Msg

from stiqueue.errors import StiQueueError, Unavailable

NO_RESPONDERS = "503"


class Refused(StiQueueError):
    """Raised when the cluster answers a request with an error."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        """Keep the code and the text of the cluster's error."""
        super().__init__(f"{error.get('description', error)} ({error.get('err_code', '')})")
        self.number = int(error.get("err_code", 0))
        self.text = str(error.get("description", ""))


class NobodyThere(Unavailable):
    """Raised when nobody listens to the subject, so the request certainly had no effect."""


def unavailable(error: Exception) -> Unavailable:
    """Translate an error of the connection to `Unavailable`."""
    text = str(error).removeprefix("nats: ") or type(error).__name__
    return Unavailable(f"the NATS cluster does not answer: {text}")


def read_answer(answer: Msg) -> dict[str, Any]:
    """Parse an answer of JetStream.

    Raises:
        Refused: the answer is an error.
    """
    read: dict[str, Any] = json.loads(answer.data)
    if "error" in read:
        raise Refused(read["error"])
    return read


def is_status(message: Msg, *statuses: str) -> bool:
    """Return whether `message` is one of these statuses of the cluster."""
    headers = message.headers
    return bool(headers) and not message.data and headers.get("Status", "") in statuses  # type: ignore[union-attr]
