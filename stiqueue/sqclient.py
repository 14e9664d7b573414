"""The client of a StiQueue server: `SQClient`."""

from __future__ import annotations

from stiqueue.client.base import BaseClient
from stiqueue.client.calls.blocking_calls import BlockingCalls
from stiqueue.client.remote import Remote
from stiqueue.message import Message


class SQClient(Remote[Message], BaseClient):
    """A client of a server. Thread-safe, lazy (connects on first use), survives restarts of the server and `fork`.

    For example:

        client = SQClient()
        client.enq("Hello, World!")
        print(client.deq().decode())
    """

    _make_calls = BlockingCalls
