"""What the cluster answers: results, statuses, and errors as ours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nats.aio.msg import Msg

from stiqueue.errors import StiQueueError, Unavailable

NO_RESPONDERS = "503"


class Refused(StiQueueError):
    """Raised when the cluster answers a request with an error of its own."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        """Keep the number and the text of the cluster's answer."""
        super().__init__(f"{error.get('description', error)} ({error.get('err_code', '')})")
        self.number = int(error.get("err_code", 0))
        self.text = str(error.get("description", ""))


class NobodyThere(Unavailable):
    """Raised when nobody listens, so that surely nothing happened."""


def unavailable(error: Exception) -> Unavailable:
    """Return an error of the connection as one of ours."""
    text = str(error).removeprefix("nats: ") or type(error).__name__
    return Unavailable(f"the NATS cluster does not answer: {text}")


def read_answer(answer: Msg) -> dict[str, Any]:
    """Return an answer of JetStream.

    Raises:
        Refused: it is an error.
    """
    read: dict[str, Any] = json.loads(answer.data)
    if "error" in read:
        raise Refused(read["error"])
    return read


def is_status(message: Msg, *statuses: str) -> bool:
    """Return whether a message is one of the cluster's statuses instead of a message."""
    headers = message.headers
    return bool(headers) and not message.data and headers.get("Status", "") in statuses  # type: ignore[union-attr]
