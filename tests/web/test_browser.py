"""Each screen and action in a real browser, as a person would use it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.ports import free_port
from support.waiting import until

from stiqueue import SQClient, SQServer
from web.browser import Browser
from web.console import Console

EVIL = "<img src=x onerror=\"document.title='stolen'\"><script>document.title='stolen'</script>'\"${7*7}{{7*7}}"
READER, WRITER = "reader-" + "r" * 20, "writer-" + "w" * 20


def test_the_overview_changes_while_somebody_looks(
    browser: Browser, full: SQServer, console: Console, client: SQClient
) -> None:
    browser.go(console.url)
    browser.sees("live", "#status")
    browser.sees("120", "#row-orders")
    browser.sees("2 dead", "#totals")
    # What is clicked and marked stays so, although the row changes.
    browser.driver.execute_script("document.querySelector('#row-orders a').focus()")
    client.enq_many([b"x"] * 5, queue="orders")
    client.enq("new", queue="brand-new")
    browser.sees("125", "#row-orders")
    browser.sees("brand-new", "#rows")
    assert browser.driver.switch_to.active_element.text == "orders"
    client.purge(queue="brand-new")
    browser.wait(lambda: not browser.all("#row-brand-new"))


def test_the_overview_stands_still_when_paused(
    browser: Browser, full: SQServer, console: Console, client: SQClient
) -> None:
    browser.go(console.url)
    browser.sees("120", "#row-orders")
    browser.click("Pause")
    browser.sees("paused", "#status")
    client.enq("x", queue="orders")
    browser.click("Paused")
    browser.sees("121", "#row-orders")
    browser.sees("live", "#status")


def test_queues_are_found_by_their_names(browser: Browser, full: SQServer, console: Console) -> None:
    browser.go(console.url)
    browser.sees("mail", "#rows")
    browser.type("Filter queues by name", "ord")
    browser.wait(lambda: not browser.all("#row-mail"))
    browser.sees("1 of 2 queues", "#totals")
    assert "filter=ord" in browser.driver.current_url
    browser.type("Filter queues by name", "nothing-like-it")
    browser.sees("No queue holds messages")
    browser.go(f"{console.url}/?filter=mai&sort=name")
    assert [each.text for each in browser.all("#rows th a")] == ["mail"]
    browser.click("Ready")
    browser.wait(lambda: "sort=ready" in browser.driver.current_url)


def test_five_thousand_queues_are_usable(browser: Browser, server: SQServer, console: Console) -> None:
    with SQClient(port=server.port) as client:
        for number in range(5_000):
            client.enq_soon("x", queue=f"tenant-{number:04}")
        client.flush()
    browser.go(console.url)
    browser.sees("5,000 queues", "#totals")
    assert len(browser.all("#rows tr")) == 100
    browser.type("Filter queues by name", "tenant-499")
    browser.wait(lambda: len(browser.all("#rows tr")) == 10)
    browser.go(f"{console.url}/?sort=name")
    browser.click("Show 200 more")
    browser.wait(lambda: len(browser.all("#rows tr")) == 300)


def test_a_queue_is_paged_through_both_ways(browser: Browser, full: SQServer, console: Console) -> None:
    browser.go(console.url)
    browser.click("orders")
    browser.sees("120", "#numbers")

    def ids() -> tuple[str, str]:
        links = browser.all(".messages tbody th a")
        return links[0].text, links[-1].text

    assert ids() == ("1", "50")
    browser.click("Next")
    browser.wait(lambda: ids() == ("51", "100"))
    browser.click("Next")
    browser.wait(lambda: ids() == ("101", "120"))
    browser.click("Previous")
    browser.wait(lambda: ids() == ("51", "100"))
    browser.click("Newest first")
    browser.wait(lambda: ids() == ("120", "71"))
    browser.click("Delayed")
    browser.wait(lambda: ids() == ("121", "121"))


def test_a_search_says_how_far_it_looked(browser: Browser, full: SQServer, console: Console) -> None:
    browser.go(f"{console.url}/queues/orders")
    browser.type("Header, as name or name=value", "tenant=t3", enter=True)
    browser.sees("Found 24, having looked at 120 ready messages, up to id 120")
    browser.type("Text in the body", '"ORDER": 13,', enter=True)
    browser.sees("Found 1,")
    browser.click("Clear")
    browser.sees("50 of 120")


def test_a_message_is_shown_with_all_that_is_known(
    browser: Browser, full: SQServer, console: Console, client: SQClient
) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"traceparent": f"00-{trace}-00f067aa0ba902b7-01", "tenant": "acme"}
    client.enq(b'{"a": [1, 2]}', queue="jobs", headers=headers, priority=7, ttl=3_600)
    client.enq(b"\x00\xff\x10", queue="jobs")
    browser.go(f"{console.url}/queues/jobs")
    browser.click("1")
    browser.sees('"a": [\n    1,\n    2\n  ]', "pre")
    for text in (trace, "acme", "until 2", "13 bytes"):
        browser.sees(text, "main")
    browser.click("hex")
    browser.sees("7b 22 61", "pre")
    browser.go(f"{console.url}/queues/jobs/messages/2")
    browser.sees("00 ff 10", "pre")
    browser.go(f"{console.url}/queues/mail?tab=dead")
    browser.sees("550 mailbox unavailable", ".messages")
    browser.click("1")
    browser.sees("Attempts there")
    browser.go(f"{console.url}/queues/jobs/messages/99")
    browser.sees("is not there")


def test_leases_say_who_holds_what(browser: Browser, full: SQServer, console: Console) -> None:
    with SQClient(port=full.port, auto_ack=False, consumer="worker@host-7", queue="orders") as holder:
        message = holder.deq(timeout=5.0)
        assert message is not None
        browser.go(f"{console.url}/leases")
        browser.sees("worker@host-7", "table")
        browser.sees("1 consumer, 1 leased")
        browser.go(f"{console.url}/queues/orders?tab=leased")
        browser.sees("worker@host-7", ".messages")
        message.requeue(0)


def test_a_message_is_enqueued_with_options(
    browser: Browser, server: SQServer, console: Console, client: SQClient
) -> None:
    browser.go(console.url)
    browser.type("Enqueue in", "jobs", enter=True)
    browser.sees("Puts one message into jobs")
    browser.type("Body", '{"a": 1')
    browser.click("JSON, checked first")
    browser.type("Priority", "9")
    browser.type("Headers", "tenant: acme")
    browser.click("Enqueue")
    browser.sees("it is not JSON")
    browser.find("#body").send_keys("}")
    browser.click("Enqueue")
    browser.sees("Enqueued message 1 in jobs.")
    (message,) = client.peek_messages(queue="jobs")
    assert (message, message.priority, message.headers) == (b'{"a": 1}', 9, {"tenant": "acme"})
    browser.click("Enqueue…")
    browser.type("Body", "for tomorrow")
    browser.type("Delay", "1d")
    browser.click("Enqueue")
    browser.sees("Enqueued message 2 in jobs.")
    browser.sees("for tomorrow", ".messages")
    assert client.counts(queue="jobs").delayed == 1


def test_a_purge_wants_the_name(browser: Browser, full: SQServer, console: Console, client: SQClient) -> None:
    browser.go(f"{console.url}/queues/orders")
    browser.click("Purge…")
    browser.sees("Drops every ready message of orders, 120 now")
    browser.type("Type the queue's name to confirm", "order", enter=True)
    browser.sees("Type orders to confirm")
    assert client.cnt(queue="orders") == 120
    browser.type("Type the queue's name to confirm", "orders", enter=True)
    browser.sees("Dropped 120 messages of orders.")
    assert client.counts(queue="orders").delayed == 1


def test_dead_letters_go_back(browser: Browser, full: SQServer, console: Console, client: SQClient) -> None:
    browser.go(f"{console.url}/queues/mail?tab=dead")
    browser.click("Redrive…")
    browser.sees("Moves all 2 dead letters of mail back")
    browser.click("Move 2 back")
    browser.sees("Moved 2 dead letters of mail back.")
    assert client.cnt(queue="mail") == 3


def test_nothing_in_a_message_becomes_part_of_the_page(
    browser: Browser, server: SQServer, console: Console, client: SQClient
) -> None:
    client.enq(EVIL, queue="jobs", headers={EVIL: EVIL})
    client.enq(EVIL + "\u202e\x1b[31m", queue="jobs")
    with SQClient(port=server.port, auto_ack=False, consumer=EVIL[:128], queue="jobs") as other:
        message = other.deq(timeout=5.0)
        assert message is not None
        message.dead_letter(EVIL)
        held = other.deq(timeout=5.0)
        assert held is not None
        client.enq(json.dumps({EVIL: EVIL}), queue="jobs")
        evil = "%3Cscript%3Edocument.title%3D%27stolen%27%3C%2Fscript%3E"
        pages = (
            "/",
            f"/?filter={evil}",
            "/leases",
            "/alerts",
            "/queues/jobs",
            f"/queues/jobs?text={evil}&header={evil}",
            "/queues/jobs?tab=leased",
            "/queues/jobs?tab=dead",
            "/queues/jobs/messages/2",
            "/queues/jobs/messages/3",
            "/queues/jobs.dead/messages/1?as=text",
            f"/queues/{evil}",
            f"/queues/jobs/messages/1{evil}",
            f"/{evil}",
            f"/login?next={evil}",
        )
        for page in pages:
            browser.go(console.url + page)
            browser.find("footer")
            assert browser.all("main script, main img, main [onerror]") == []
            assert browser.driver.title.endswith("StiQueue")
        browser.go(f"{console.url}/queues/jobs.dead/messages/1?as=text")
        browser.sees("document.title='stolen'", "pre")
        held.requeue(0)


def test_two_people_see_each_other_act(browser: Browser, full: SQServer, console: Console) -> None:
    browser.go(f"{console.url}/queues/orders")
    first = browser.driver.current_window_handle
    browser.new_window()
    browser.go(f"{console.url}/queues/orders/enqueue")
    browser.type("Body", "from the other window")
    browser.click("Enqueue")
    browser.sees("Enqueued message 122")
    browser.driver.switch_to.window(first)
    browser.sees("121", "#numbers")
    browser.sees("121", "#tabs")


def test_a_server_goes_away_and_comes_back(browser: Browser) -> None:
    port = free_port()
    with ExitStack() as stack:
        server = stack.enter_context(SQServer(port=port))
        console = stack.enter_context(Console(port))
        browser.go(console.url)
        browser.sees("live", "#status")
        server.stop()
        browser.sees("no answer", "#status")
        browser.go(f"{console.url}/queues/orders")
        browser.sees("no answer from", "main")
        browser.go(f"{console.url}/")
        stack.enter_context(SQServer(port=port))
        with SQClient(port=port) as client:
            client.enq("back", queue="after-the-break")
        browser.sees("live", "#status")
        browser.sees("after-the-break", "#rows")


def test_a_console_waits_for_a_server_that_is_not_there_yet(browser: Browser) -> None:
    port = free_port()
    with Console(port) as console:
        browser.go(console.url)
        browser.sees("The server does not answer")
        with SQServer(port=port):
            browser.sees("live", "#status")


def test_a_console_goes_away_and_comes_back(browser: Browser, server: SQServer) -> None:
    port = free_port()
    with Console(server.port, web_port=port) as console:
        browser.go(console.url)
        browser.sees("live", "#status")
    browser.sees("console not reached", "#status")
    with Console(server.port, web_port=port):
        browser.sees("live", "#status")


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[SQServer]:
    """A server that asks for tokens."""
    tokens = tmp_path / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"{READER} peek\n{WRITER} enq,deq,peek\n")
    with SQServer(port=free_port(), tokens=str(tokens)) as server:
        yield server


def test_people_log_in_with_a_token_and_out(browser: Browser, guarded: SQServer, tmp_path: Path) -> None:
    with Console(guarded.port) as console:
        browser.go(f"{console.url}/queues/jobs?tab=dead")
        browser.sees("Type a token")
        browser.type("Token", "not-the-token", enter=True)
        browser.sees("The server does not know this token.")
        browser.type("Token", WRITER, enter=True)
        browser.sees("No dead messages")
        assert browser.driver.current_url.endswith("/queues/jobs?tab=dead")
        (cookie,) = browser.driver.get_cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], WRITER in cookie["value"]) == (True, "Strict", False)
        browser.click("Enqueue…")
        browser.type("Body", "hello")
        browser.click("Enqueue")
        browser.sees("Enqueued message 1")
        browser.click("Log out")
        browser.sees("Type a token")
        browser.driver.back()
        browser.sees("Type a token")
        browser.driver.add_cookie({"name": cookie["name"], "value": cookie["value"]})
        browser.go(console.url)
        browser.sees("Type a token")
        # A token that is taken back ends what its holder sees.
        browser.type("Token", WRITER, enter=True)
        browser.sees("live", "#status")
        (tmp_path / "tokens").write_text(f"{READER} peek\n")
        browser.sees("Type a token")


def test_a_token_that_may_look_offers_no_action(browser: Browser, guarded: SQServer) -> None:
    with SQClient(port=guarded.port, token=WRITER) as client:
        client.enq("hello", queue="jobs")
    with Console(guarded.port) as console:
        browser.go(console.url)
        browser.type("Token", READER, enter=True)
        browser.sees("read-only")
        browser.click("jobs")
        browser.sees("hello", ".messages")
        assert [each.text for each in browser.all("button, .actions a")] == ["Pause", "Dark", "Log out", "Search"]
        browser.go(f"{console.url}/queues/jobs/purge")
        browser.type("Type the queue's name to confirm", "jobs", enter=True)
        browser.sees("the token has no right to deq")


class _Page(BaseHTTPRequestHandler):
    """A page of somebody else that sends a form to a console."""

    target = ""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        form = (
            f'<form method="post" action="{self.target}"><input name="body" value="evil"><button>Win</button></form>'
            f'<iframe src="{self.target}"></iframe>'
        )
        self.wfile.write(form.encode())

    def log_message(self, *_: object) -> None:
        pass


def test_a_page_of_somebody_else_changes_nothing(
    browser: Browser, server: SQServer, console: Console, client: SQClient
) -> None:
    _Page.target = f"{console.url}/queues/jobs/enqueue"
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as site:  # browsers open connections that they may not use
        thread = threading.Thread(target=site.serve_forever, daemon=True)
        thread.start()
        try:
            for host in ("127.0.0.1", "localhost"):
                browser.go(f"http://{host}:{site.server_port}/")
                browser.click("Win")
                browser.sees("A change must come from a page of this console.")
        finally:
            site.shutdown()
            thread.join()
    assert client.queues() == {}
    browser.driver.get_log("browser")  # type: ignore[no-untyped-call]  # what the policy has to say of the frame


def test_nothing_is_asked_while_nobody_looks(browser: Browser, server: SQServer, console: Console) -> None:
    asked: list[object] = []
    counts = server.engine.counts

    async def counting(queues: object) -> object:
        asked.append(queues)
        return await counts(queues)  # type: ignore[arg-type]

    server.engine.counts = counting  # type: ignore[method-assign, assignment]
    browser.go(console.url)
    first = browser.driver.current_window_handle
    browser.new_window()
    browser.go(console.url)
    until(lambda: len(asked) > 3)
    browser.click("Pause")
    browser.driver.switch_to.window(first)
    browser.click("Pause")
    browser.sees("paused", "#status")
    done = len(asked)
    browser.go(f"{console.url}/healthz")
    threading.Event().wait(2.5)  # the only way to see that nothing happens
    assert len(asked) <= done + 1  # one may have been on its way
