"""Actions on single messages, on a selection and on a queue, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ports import free_port

from stiqueue import SQClient, SQServer
from stiqueue.message import State
from web.browser import Browser
from web.console import Console

WORKER = "worker-" + "w" * 20


def test_dead_letters_that_are_selected_go_back(
    browser: Browser, full: SQServer, console: Console, client: SQClient
) -> None:
    browser.go(f"{console.url}/queues/mail?tab=dead")
    browser.click("Redrive…")  # that of the queue, which comes first
    browser.sees("Moves all 2 dead letters")
    browser.click("Cancel")
    browser.go(f"{console.url}/queues/mail?tab=dead")
    browser.find("input[value='2']").click()
    browser.find("button[value='redrive']").click()
    browser.sees("Moves message 2 of mail.dead back to the queue it came from")
    browser.click("Move back")
    browser.sees("Moved message 2 of mail.dead back.")
    assert [message.id for message in client.peek_messages(queue="mail.dead")] == [1]
    assert client.cnt(queue="mail") == 2
    browser.find("#select-all").click()
    browser.find("button[value='drop']").click()
    browser.sees("Drops message 1 of mail.dead for good.")
    browser.click("Drop")
    browser.sees("Dropped message 1 of mail.dead.")
    assert client.cnt(queue="mail.dead") == 0


def test_messages_are_dropped_only_once_that_is_confirmed(
    browser: Browser, full: SQServer, console: Console, client: SQClient
) -> None:
    browser.go(f"{console.url}/queues/orders?after=50")
    browser.find("button[value='drop']").click()
    browser.sees("No message was selected.")
    browser.go(f"{console.url}/queues/orders?after=50")
    browser.find("#select-all").click()
    browser.find("button[value='drop']").click()
    browser.sees("Drops the 50 selected messages of orders for good.")
    browser.click("Cancel")
    browser.sees("120", "#numbers")
    assert client.cnt(queue="orders") == 120
    browser.go(f"{console.url}/queues/orders?after=50")
    browser.find("#select-all").click()
    browser.find("button[value='drop']").click()
    browser.sees("Drops the 50 selected messages")
    client.cancel(51, queue="orders")
    browser.find("button.danger").click()
    browser.sees("Dropped 49 of 50 messages (the others are gone, or a consumer holds them), of orders.")
    assert client.cnt(queue="orders") == 70


def test_a_delayed_message_is_delivered_now(
    browser: Browser, full: SQServer, console: Console, client: SQClient
) -> None:
    browser.go(f"{console.url}/queues/orders?tab=delayed")
    browser.click("121")
    browser.click("Reschedule…")
    browser.type("Delay", "never")
    browser.click("Reschedule")
    browser.sees("is not a duration")
    browser.find("#asked").clear()
    browser.click("Reschedule")
    browser.sees("Rescheduled message 121 of orders.")
    assert (client.counts(queue="orders").delayed, client.cnt(queue="orders")) == (0, 121)


def test_a_message_is_edited_and_takes_the_place_of_another(
    browser: Browser, full: SQServer, console: Console, client: SQClient
) -> None:
    browser.go(f"{console.url}/queues/orders/messages/7?state=ready")
    browser.click("Edit…")
    assert browser.find("#body").get_attribute("value") == '{"order": 6, "customer": "c-6"}'
    browser.type("Body", "changed")
    browser.type("Priority", "9")
    browser.click("Replace")
    browser.sees("Message 122 of orders has taken the place of message 7.")
    first = client.peek_messages(1, queue="orders")[0]
    assert (first, first.id, first.priority, first.headers) == (b"changed", 122, 9, {"tenant": "t1"})
    assert 7 not in [message.id for message in client.peek_messages(queue="orders")]


ODD = [b"a\r\nb\r\n", b"a\rb", b"a\0b", b"\xff", b"  a \n", "\u202e\u00e4\u2028".encode(), b'{"a": 1, "a": 1e400}']
"""Bodies that a browser, or a look at them as JSON, would change."""


@pytest.mark.parametrize("body", ODD)
def test_an_edit_of_the_priority_changes_nothing_else(
    browser: Browser, server: SQServer, console: Console, client: SQClient, body: bytes
) -> None:
    headers = {"h": "l1\nx: y", "a:b": " c "}
    client.enq(body, queue="odd", headers=headers)
    browser.go(f"{console.url}/queues/odd/messages/1?state=ready")
    browser.click("Edit…")
    browser.type("Priority", "9")
    browser.click("Replace")
    browser.sees("Message 2 of odd has taken the place of message 1.")
    (message,) = client.peek_messages(queue="odd")
    assert (bytes(message), message.priority, message.headers) == (body, 9, headers)


def test_a_body_that_would_be_endless_as_json_is_cut(
    browser: Browser, server: SQServer, console: Console, client: SQClient
) -> None:
    client.enq(b"[" * 900 + b"1," * 100_000 + b"1" + b"]" * 900, queue="odd")
    client.enq(b'{"name": "\\ud800"}', queue="odd")
    browser.go(f"{console.url}/queues/odd/messages/1?state=ready")
    browser.sees("This is the beginning; the download has all of it.")
    browser.go(f"{console.url}/queues/odd/messages/2?state=ready")
    browser.sees('"name": "\\ud800"')


def test_a_message_becomes_a_dead_letter(browser: Browser, full: SQServer, console: Console, client: SQClient) -> None:
    browser.go(f"{console.url}/queues/orders/messages/1?state=ready")
    browser.click("Dead-letter…")
    browser.type("Reason", "not <b>wanted</b>")
    browser.click("Dead-letter")
    browser.sees("Moved message 1 of orders to its dead letters.")
    browser.go(f"{console.url}/queues/orders?tab=dead")
    browser.sees("not <b>wanted</b>", ".messages")
    browser.go(f"{console.url}/queues/orders.dead/messages/1")
    browser.click("Redrive…")
    browser.click("Move back")
    browser.sees("Moved message 1 of orders.dead back.")
    assert client.cnt(queue="orders") == 120


def test_a_message_that_somebody_holds_stays_as_it_is(browser: Browser, full: SQServer, console: Console) -> None:
    with SQClient(port=full.port, auto_ack=False, queue="orders") as holder:
        browser.go(f"{console.url}/queues/orders/messages/1/drop")
        message = holder.deq(timeout=5.0)
        assert message is not None
        browser.click("Drop")
        browser.sees("Dropped 0 of 1 messages")
        browser.go(f"{console.url}/queues/orders/messages/1/reschedule")
        browser.click("Reschedule")
        browser.sees("is leased")
        browser.go(f"{console.url}/queues/orders/messages/1?state=leased")
        browser.sees("leased")
        assert browser.all(".actions a") == []
        message.requeue(0)


def test_a_queue_is_paused_and_resumed(browser: Browser, full: SQServer, console: Console, client: SQClient) -> None:
    browser.go(f"{console.url}/queues/orders")
    browser.find(".actions a[href$='/pause']").click()
    browser.sees("Delivers nothing of orders")
    browser.type("For", "10m")
    browser.click("Pause orders")
    browser.sees("orders is paused for 10m.")
    browser.sees("delivers nothing for another", "#numbers")
    assert client.deq(timeout=0.0, queue="orders") is None
    browser.go(console.url)
    browser.sees("paused", "#row-orders")
    browser.go(f"{console.url}/queues/orders")
    browser.click("Resume…")
    browser.click("Resume orders")
    browser.sees("orders delivers again.")
    assert client.deq(timeout=5.0, queue="orders") is not None


def test_settings_are_changed_and_taken_back(
    browser: Browser, full: SQServer, console: Console, client: SQClient
) -> None:
    browser.go(f"{console.url}/queues/orders")
    browser.click("Settings…")
    browser.sees("Now no limit")
    browser.type("Attempts", "many")
    browser.click("Change")
    browser.sees("is not a whole number")
    browser.type("Attempts", "5")
    browser.type("Ack timeout", "30s")
    browser.click("Change")
    browser.sees("The settings of orders are changed.")
    browser.sees("Now 30s")
    settings = client.settings(queue="orders")
    assert (settings.max_attempts, settings.ack_timeout) == (5, 30.0)
    browser.find("#max_attempts").clear()
    browser.click("Change")
    browser.wait(lambda: browser.find("#max_attempts").get_attribute("value") == "")
    browser.sees("Now no limit")
    assert client.settings(queue="orders").max_attempts == 0


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[SQServer]:
    """A server that asks for tokens."""
    tokens = tmp_path / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"{WORKER} enq,deq,peek\n")
    with SQServer(port=free_port(), tokens=str(tokens)) as server:
        yield server


def test_settings_are_for_those_who_may(browser: Browser, guarded: SQServer) -> None:
    with Console(guarded.port) as console:
        browser.go(f"{console.url}/queues/orders")
        browser.type("Token", WORKER, enter=True)
        browser.sees("Purge…")
        assert browser.all(".actions a[href$='/pause'], .actions a[href$='/settings']") == []
        for page, words in (("pause", "no right to admin"), ("settings", "no right to admin")):
            browser.go(f"{console.url}/queues/orders/{page}")
            if page == "pause":
                browser.click("Pause orders")
            browser.sees(words)


@pytest.mark.parametrize("path", ["edit", "drop", "reschedule", "bury", "redrive"])
def test_looking_at_the_form_of_a_message_changes_nothing(
    full: SQServer, console: Console, client: SQClient, path: str
) -> None:
    assert console.ask(f"/queues/orders/messages/1/{path}").status == 200
    assert console.ask(f"/queues/orders/messages/1/{path}?confirmed=yes").status == 200
    if path != "edit":
        assert console.ask(f"/queues/orders/messages/1/{path}", {"id": "1"}).status == 200
    assert client.cnt(queue="orders") == 120
    assert len(client.peek_messages(queue="orders", state=State.ALL)) == 121


def test_what_cannot_be_done_is_refused(full: SQServer, console: Console) -> None:
    assert console.ask("/queues/orders/messages/1/explode").status == 404
    assert console.ask("/queues/orders/messages/1/redrive", {"confirmed": "yes"}).status == 400
    assert console.ask("/queues/orders/selected", {"id": "1", "deed": "explode"}).status == 400
    assert console.ask("/queues/orders/selected", {"id": "x", "deed": "drop"}).status == 400
    assert console.ask("/queues/orders/messages/999/edit").status == 404
