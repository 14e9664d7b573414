"""The short way of messages through nats-py."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from support.nats_servers import NatsServer

from stiqueue.engines.jetstream.client import QuickClient
from stiqueue.engines.jetstream.cluster import Cluster

SENT: list[tuple[bytes, dict[str, str] | None]] = [
    (b"plain", None),
    (b"foreign", {"Nats-Batch-Id": "x"}),
    (b"ours", {"Stiqueue": '{"t":1}'}),
    (b"fails", None),
    (b"", {"Nats-Pending-Messages": "3"}),
    (b"", None),
]


@pytest.mark.parametrize("is_quick", [True, False], ids=["short way", "usual way"])
def test_all_that_is_sent_is_heard_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_quick: bool) -> None:
    if not is_quick:  # as if nats-py did not call what is overridden
        monkeypatch.setattr(QuickClient, "_process_msg", Client._process_msg)
    heard: list[tuple[bytes, Any]] = []

    def hear(message: Msg) -> None:
        heard.append((message.data, message.headers))
        if message.data == b"fails":
            raise ValueError("a handler that fails")

    async def send() -> None:
        cluster = Cluster([f"nats://127.0.0.1:{server.port}"], "test", logging.getLogger("quiet"))
        logging.getLogger("quiet").setLevel(logging.CRITICAL)
        await cluster.connect()
        interest = await cluster.subscribe_quickly("to.*", hear)
        for body, headers in SENT:
            await cluster.send("to.me", body, headers=headers)
        if not is_quick:
            await cluster.reach()
            await interest._pending_queue.join()
        await cluster.lose_interest(interest)
        await cluster.send("to.me", b"too late")
        assert await cluster.reach()
        assert list(cluster._client._quick) == list(cluster._client._subs), "nothing is left behind"
        await cluster.close()

    server = NatsServer(tmp_path, jetstream=False)
    try:
        server.start()
        asyncio.run(send())
    finally:
        server.end()
    assert [body for body, _ in heard] == [body for body, _ in SENT]
    for (body, sent), (_, read) in zip(SENT, heard, strict=False):
        if is_quick and body == b"foreign":
            assert read is None
        else:
            assert read == sent
