"""What the console shows of keys, recurring jobs and requests."""

from __future__ import annotations

from stiqueue import SQClient, SQServer
from web.browser import Browser
from web.console import Console


def test_a_blocked_message_leads_to_the_one_that_blocks_it(
    browser: Browser, server: SQServer, console: Console, client: SQClient
) -> None:
    for number in range(3):
        client.enq(f"{number}", queue="jobs", key="<b>acme</b>")
    client.enq("other", queue="jobs", key="other")
    with SQClient(port=server.port, auto_ack=False, queue="jobs", consumer="worker-7") as holder:
        message = holder.deq(timeout=5.0)
        assert message == b"0"
        browser.go(f"{console.url}/queues/jobs")
        browser.sees("2 ready messages wait for an earlier message of their key", "#numbers")
        rows = [each.text for each in browser.all(".messages tbody tr")]
        assert ["blocked by message 1, leased by worker-7" in row for row in rows] == [True, True, False]
        assert ["key <b>acme</b>" in row for row in rows] == [True, True, False]
        browser.click("2")
        browser.sees("ready, blocked by message 1, leased by worker-7", ".facts")
        browser.click("message 1")
        browser.sees("leased by worker-7", ".facts")
        browser.sees("<b>acme</b>", ".facts")
        browser.go(f"{console.url}/leases")
        browser.sees("key <b>acme</b>", "table")
        message.requeue(600)
        browser.go(f"{console.url}/queues/jobs/messages/3?state=ready")
        browser.sees("blocked by message 1, given back until", ".facts")
        browser.click("message 1")
        browser.sees("delayed", ".facts")


def test_a_message_tells_its_unique_key_its_schedule_and_where_its_reply_goes(
    browser: Browser, console: Console, client: SQClient
) -> None:
    headers = {
        "stiqueue-cron-name": "report",
        "stiqueue-cron-time": "2026-11-27T03:00:00Z",
        "stiqueue-reply-to": "replies.7",
    }
    client.enq("x", queue="jobs", unique_key="nightly", headers=headers)
    browser.go(f"{console.url}/queues/jobs")
    browser.sees("unique key nightly", ".messages")
    browser.click("1")
    facts = browser.find(".facts").text.split("\n")
    told = dict(zip(facts[::2], facts[1::2], strict=True))
    assert told["Unique key"] == "nightly"
    assert told["Recurring job"] == "report, due 2026-11-27T03:00:00Z"
    assert told["Reply goes to"] == "replies.7"


def test_messages_of_every_priority_are_on_a_page(browser: Browser, console: Console, client: SQClient) -> None:
    client.enq_many(["low"] * 75, queue="jobs", priority=0)
    client.enq_many(["high"] * 1_000, queue="jobs", priority=5)
    browser.go(f"{console.url}/queues/jobs?after=1050&priority=5")
    browser.sees("ids 1051 to 25", ".pages")
    browser.click("Next")
    browser.sees("50 of 1,075, ids 26 to 75", ".pages")
    browser.click("75")
    browser.sees("low", "pre")
    browser.driver.back()
    browser.click("Previous")
    browser.sees("ids 1051 to 25", ".pages")
    browser.click("Newest first")
    browser.sees("ids 1075 to 1026", ".pages")
    browser.go(f"{console.url}/queues/jobs/messages/2")
    browser.sees("low", "pre")
    browser.go(f"{console.url}/queues/jobs?priority=256")
    browser.sees("priority: '256' is not within 0 to 255")
