"""The client of a StiQueue server: `SQClient`."""

from __future__ import annotations

from stiqueue.blocking_calls import BlockingCalls
from stiqueue.client import BaseClient
from stiqueue.message import Message
from stiqueue.remote import Remote


class SQClient(Remote[Message], BaseClient):
    """A client of a server. Thread-safe, lazy (connects on first use), survives restarts of the server and `fork`.

    Example:
        client = SQClient()
        client.enq("Hello, World!")
        print(client.deq().decode())
    """

    _make_calls = BlockingCalls
