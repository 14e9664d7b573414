"""The names that queues have in the cluster."""

from __future__ import annotations

import re

from stiqueue.errors import InvalidRequest

DEFAULT_PREFIX = "stiqueue"
"""What the name of everything in the cluster begins with."""

CONSUMER = "workers"
"""The one consumer of each stream, shared by all gateways."""


class Names:
    """Names under one prefix. A queue's name may have dots, those of streams may not: each becomes "="."""

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        """Use `prefix`, which separates installations that share a cluster.

        Raises:
            InvalidRequest: it cannot be part of a stream's name.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", prefix, re.ASCII):
            raise InvalidRequest(f"prefix: {prefix!r} is not 1 to 32 of A-Z a-z 0-9 _ -", "BAD_OPTION")
        self.prefix = prefix
        self.all_queues = f"{prefix}.q.>"
        """A filter for the subjects of all queues."""
        self.gateways = f"{prefix}.gateways"
        """What all gateways listen to."""

    def stream(self, queue: str) -> str:
        """Return the stream of a queue."""
        return f"{self.prefix}-{_token(queue)}"

    def queue(self, stream: str) -> str:
        """Return the queue of a stream."""
        return stream[len(self.prefix) + 1 :].replace("=", ".")

    def ready(self, queue: str) -> str:
        """Return the subject of messages that can be delivered."""
        return f"{self.prefix}.q.{_token(queue)}.ready"

    def later(self, queue: str, key: str = "*") -> str:
        """Return the subject of one delayed message, or of all."""
        return f"{self.prefix}.q.{_token(queue)}.later.{key}"

    def probe(self, queue: str) -> str:
        """Return the subject on which a request id is asked for; nobody ever receives from it."""
        return f"{self.prefix}.q.{_token(queue)}.probe"

    def gateway(self, gateway: str) -> str:
        """Return what one gateway listens to."""
        return f"{self.prefix}.gateway.{gateway}"


def _token(queue: str) -> str:
    return queue.replace(".", "=")
