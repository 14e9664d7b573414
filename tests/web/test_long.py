"""A long queue in a browser: each page of it is as near as the first."""

from __future__ import annotations

import pytest
from support.waiting import PATIENCE

from stiqueue import SQClient
from stiqueue.web import search as searching
from web.browser import Browser
from web.console import Console


@pytest.mark.parametrize(
    "number",
    [10_000, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(300)])],
)
def test_a_long_queue_is_usable(
    browser: Browser, console: Console, client: SQClient, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "MOST_SECONDS", PATIENCE)
    client.enq_many([b'{"order": 123456}'] * (number - 1), queue="long", headers={"tenant": "acme"})
    client.enq("the last one", queue="long")
    middle = number // 2
    browser.go(f"{console.url}/queues/long")
    browser.sees(f"50 of {number:,}, ids 1 to 50", ".pages")
    browser.click("Next")
    browser.sees("ids 51 to 100", ".pages")
    browser.click("Newest first")
    browser.sees(f"ids {number} to {number - 49}", ".pages")
    browser.sees("the last one", ".messages")
    browser.click("Next")
    browser.sees(f"ids {number - 50} to {number - 99}", ".pages")
    browser.go(f"{console.url}/queues/long?after={middle}")
    browser.sees(f"ids {middle + 1} to {middle + 50}", ".pages")
    browser.click("Previous")
    browser.sees(f"ids {middle - 49} to {middle}", ".pages")
    browser.click(str(middle))
    browser.sees('"order": 123456', "pre")
    browser.driver.back()
    browser.find(f"input[value='{middle}']").click()
    browser.click("Drop…")
    browser.find("button.danger").click()
    browser.sees(f"Dropped message {middle} of long.")
    browser.sees(f"{number - 1:,}", "#tabs")
    # The search ends where its bounds are, not where the queue does.
    browser.type("Text in the body", "nothing like it", enter=True)
    browser.sees("Found 0")
    assert ("Search on from there" in browser.text("main")) == (number > 20_000)
    assert client.cnt(queue="long") == number - 1
