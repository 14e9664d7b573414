"""Which requests a console serves, and what it tells browsers to refuse."""

from __future__ import annotations

import re

import pytest

from stiqueue import InvalidRequest, SQClient, SQServer
from stiqueue.message import State
from stiqueue.web.options import WebOptions
from web.console import Console

FORM = {"body": "x"}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8080", 200),
        ("10.1.2.3", 200),
        ("localhost:8080", 200),
        ("queues.example.org", 200),
        ("queues.example.org:8443", 200),
        ("evil.example.org", 421),
        ("127.0.0.1.evil.example.org", 421),
        ("localhost.evil.example.org", 421),
        ("evil@127.0.0.1", 200),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_only_our_names_are_answered(server: SQServer, host: str, status: int) -> None:
    with Console(server.port, web_origin="https://queues.example.org") as console:
        assert console.ask("/", host=host).status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 303),
        ({"sec_fetch_site": "same-origin"}, 303),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "none"}, 403),
        ({"origin": "http://evil.example.org"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": ""}, 403),
    ],
)
def test_a_change_comes_from_a_page_of_the_console(
    console: Console, client: SQClient, headers: dict[str, str], status: int
) -> None:
    assert console.ask("/queues/jobs/enqueue", FORM, **headers).status == status
    assert client.cnt(queue="jobs") == (status == 303)


def test_a_change_without_any_origin_is_refused(console: Console, client: SQClient) -> None:
    answer = console.ask("/queues/jobs/enqueue", method="POST", content_length="0")
    assert (answer.status, client.cnt(queue="jobs")) == (403, 0)


@pytest.mark.parametrize("path", ["/queues/jobs/purge", "/queues/jobs/redrive", "/queues/jobs/enqueue?body=x"])
def test_looking_at_a_form_changes_nothing(console: Console, client: SQClient, path: str) -> None:
    client.enq("x", queue="jobs")
    assert console.ask(path).status == 200
    assert console.ask(path, method="HEAD").status == 200
    assert client.cnt(queue="jobs") == 1


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(console: Console, method: str) -> None:
    assert console.ask("/", method=method).status == 405


def test_a_form_that_is_too_large_is_refused_before_it_is_read(console: Console) -> None:
    answer = console.ask("/queues/jobs/enqueue", FORM, content_length=str(17 << 20))
    assert (answer.status, "16 MiB" in answer.text) == (413, True)


@pytest.mark.parametrize("path", ["/", "/queues/jobs", "/nothing", "/login", "/static/console.js", "/healthz"])
def test_every_answer_has_a_strict_policy(console: Console, path: str) -> None:
    headers = console.ask(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] in ("no-store", "no-cache")
    assert "server" not in headers


def test_a_body_is_saved_and_never_shown(console: Console, client: SQClient) -> None:
    client.enq("<script>alert(1)</script>", queue="jobs")
    answer = console.ask("/queues/jobs/messages/1/body")
    assert answer.text == "<script>alert(1)</script>"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == 'attachment; filename="jobs-1.bin"'
    assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/queues/a b", 404),
        ("/queues/a%20b", 400),
        ("/queues/%3Cb%3E", 400),
        (f"/queues/{'a' * 129}", 400),
        ("/queues/jobs/messages/x", 400),
        (f"/queues/jobs/messages/{'9' * 30}", 400),
        ("/queues/jobs/messages/0", 404),
        ("/queues/jobs?after=-1", 400),
        ("/queues/jobs?tab=nothing&after=&before=", 200),
        ("/?shown=999999999&sort=nothing", 200),
        ("/enqueue?queue=", 303),
        ("/enqueue?queue=a%20b", 400),
        ("/static/../app.py", 404),
        ("/static/%2e%2e/app.py", 404),
    ],
)
def test_what_no_page_links_to_is_answered(console: Console, path: str, status: int) -> None:
    if " " not in path:
        assert console.ask(path).status == status


@pytest.mark.parametrize("queue", [".", "..", "a.b", "-", "_"])
def test_every_name_has_an_address(console: Console, client: SQClient, queue: str) -> None:
    client.enq("found me", queue=queue)
    overview = console.ask("/").text
    path = f"/queues/~{queue}" if queue in (".", "..") else f"/queues/{queue}"
    assert f'href="{path}"' in overview
    assert "found me" in console.ask(path).text


@pytest.mark.parametrize(
    "form",
    [
        {"body": "xyz", "form": "hex"},
        {"body": "{", "form": "json"},
        {"priority": "256"},
        {"priority": "-1"},
        {"priority": "²"},
        {"delay": "soon"},
        {"delay": "400d"},
        {"ttl": "0"},
        {"headers": "no colon"},
        {"headers": ": no name"},
        {"headers": "\n".join(f"h{n}: x" for n in range(65))},
        {"request_id": "x" * 129},
    ],
)
def test_what_cannot_be_enqueued_is_refused_with_a_reason(
    console: Console, client: SQClient, form: dict[str, str]
) -> None:
    answer = console.ask("/queues/jobs/enqueue", form)
    assert (answer.status, 'class="said bad"' in answer.text, client.cnt(queue="jobs")) == (400, True, 0)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"web_host": "0.0.0.0"}, "--web-tls-cert"),
        ({"web_host": "0.0.0.0", "token": "t" * 20}, "--web-open"),
        ({"web_host": "0.0.0.0", "web_origin": "http://queues.example.org"}, "--web-tls-cert"),
        ({"web_tls_cert": "cert.pem"}, "both or neither"),
        ({"web_origin": "queues.example.org"}, "https://NAME"),
        ({"web_origin": "https://queues.example.org/path"}, "https://NAME"),
        ({"web_origin": "https://a b"}, "https://NAME"),
        ({"web_origin": "https://x:99999999"}, "https://NAME"),
    ],
)
def test_options_that_would_be_unsafe_are_refused(options: dict[str, str], word: str) -> None:
    with pytest.raises(InvalidRequest, match=word):
        WebOptions(**options)  # type: ignore[arg-type]


def test_a_console_for_other_machines_is_closed_without_tokens(server: SQServer) -> None:
    with Console(server.port, web_host="0.0.0.0", web_origin="https://queues.example.org") as console:
        for path in ("/", "/queues/jobs", "/live"):
            answer = console.ask(path)
            assert (answer.status, "--web-open" in answer.text) == (403, True)
        assert console.ask("/queues/jobs/enqueue", FORM).status == 403
    with Console(server.port, web_host="0.0.0.0", web_open=True) as console:
        assert console.ask("/").status == 200


def test_a_message_is_enqueued_with_its_keys(console: Console, client: SQClient) -> None:
    for _ in range(2):
        form = {"body": "x", "key": "customer-7", "unique_key": "invoice-9"}
        assert console.ask("/queues/jobs/enqueue", form).status == 303
    assert client.cnt(queue="jobs") == 1
    shown = console.ask("/queues/jobs/messages/1").text
    assert "customer-7" in shown
    assert "invoice-9" in shown
    assert "key customer-7" in console.ask("/queues/jobs").text


@pytest.mark.parametrize("name", ["unique_key", "request_id"])
def test_a_message_that_is_not_enqueued_again_is_said(console: Console, client: SQClient, name: str) -> None:
    said = []
    for body in ("x", "y"):
        answer = console.ask("/queues/jobs/enqueue", {"body": body, name: "same"})
        said += re.findall(r'<p class="said[^>]*>([^<]*)<', console.ask(answer.headers["location"]).text)
    assert said == [
        "Enqueued message 1 in jobs.",
        f"Nothing was enqueued: message 1 was enqueued in jobs before, with this {name.replace('_', ' ')}.",
    ]
    assert [bytes(message) for message in client.peek_messages(queue="jobs")] == [b"x"]


@pytest.mark.parametrize(("given", "is_kept"), [("", True), ("0", False), ("30d", False)])
def test_an_edited_message_stays_delayed_until_the_same_time(
    console: Console, client: SQClient, given: str, is_kept: bool
) -> None:
    client.enq("x", queue="jobs", delay=3_600)
    (before,) = client.peek_messages(queue="jobs", state=State.DELAYED)
    assert "stays delayed until" in console.ask("/queues/jobs/messages/1/edit").text
    form = {"body": "y", "form": "text", "headers": "", "priority": "3", "delay": given, "ttl": ""}
    assert console.ask("/queues/jobs/messages/1/edit", form).status == 303
    (after,) = client.peek_messages(queue="jobs", state=State.ALL)
    assert (bytes(after), after.priority) == (b"y", 3)
    assert (abs(after.ready_time_ms - before.ready_time_ms) < 60_000) == is_kept
    assert (after.state is State.READY) == (given == "0")
