"""The names of streams and subjects in the cluster."""

from __future__ import annotations

import re

from stiqueue.errors import InvalidRequest

DEFAULT_PREFIX = "stiqueue"
"""The prefix of every name in the cluster."""

CONSUMER = "workers"
"""The one consumer of each stream, shared by all gateways."""


class Names:
    """Names under one prefix. Stream names allow no dots, so each dot of a queue name becomes "="."""

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        """Use `prefix`, which separates installations that share a cluster.

        Raises:
            InvalidRequest: the prefix is not allowed in a stream name.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", prefix, re.ASCII):
            raise InvalidRequest(f"prefix: {prefix!r} is not 1 to 32 of A-Z a-z 0-9 _ -", "BAD_OPTION")
        self.prefix = prefix
        self.all_queues = f"{prefix}.q.>"
        """A filter for the subjects of all queues."""
        self.gateways = f"{prefix}.gateways"
        """The subject that all gateways listen to."""
        bucket = f"{prefix}-settings"
        self.settings_stream = f"KV_{bucket}"
        """The stream of the key-value bucket with the settings of queues."""
        self.settings_stream_subjects = f"$KV.{bucket}.>"
        self.settings = f"$KV.{bucket}.queues"
        """The subject of the bucket's one entry."""

    def stream(self, queue: str) -> str:
        """Return the stream of a queue."""
        return f"{self.prefix}-{_token(queue)}"

    def queue(self, stream: str) -> str:
        """Return the queue of a stream."""
        return stream[len(self.prefix) + 1 :].replace("=", ".")

    def ready(self, queue: str) -> str:
        """Return the subject of ready messages."""
        return f"{self.prefix}.q.{_token(queue)}.ready"

    def later(self, queue: str, key: str = "*") -> str:
        """Return the subject of one delayed message, or of all."""
        return f"{self.prefix}.q.{_token(queue)}.later.{key}"

    def probe(self, queue: str) -> str:
        """Return the subject of request id records and of queries for them; no consumer reads it."""
        return f"{self.prefix}.q.{_token(queue)}.probe"

    def undelayed(self, queue: str) -> str:
        """Return a filter for the subjects of ready messages and of request ids."""
        return f"{self.prefix}.q.{_token(queue)}.*"

    @property
    def removals(self) -> tuple[str, str]:
        """The subjects on which the cluster tells that a stream, or its consumer, was removed."""
        advisory = "$JS.EVENT.ADVISORY"
        return f"{advisory}.STREAM.DELETED.*", f"{advisory}.CONSUMER.DELETED.*.{CONSUMER}"

    def removed(self, subject: str) -> str | None:
        """Return the queue of the stream that a message on one of `removals` names; None: it is not of a queue."""
        stream = subject.split(".")[5]
        return self.queue(stream) if stream.startswith(f"{self.prefix}-") else None

    def gateway(self, gateway: str) -> str:
        """Return the subject that one gateway listens to."""
        return f"{self.prefix}.gateway.{gateway}"


def _token(queue: str) -> str:
    return queue.replace(".", "=")
