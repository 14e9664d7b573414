"""A body is shown as it is."""

from __future__ import annotations

import json
from html import unescape

import pytest

from stiqueue import SQClient
from stiqueue.web.bodies import MOST_TEXT, write
from web.console import Console

EXACT = ['{"a": 1, "a": 2}', "[1e400, -0.0, 1.10, 0.1234567890123456789]", '{"id": 123456789012345678901234567890}']


@pytest.mark.parametrize("body", EXACT)
def test_json_keeps_its_numbers_and_its_doubled_keys(body: str) -> None:
    written = write(body.encode())
    assert written.form == "json"
    assert "".join(written.text.split()) == "".join(body.split())


VALUES = [
    {},
    [],
    {"a": [], "b": {}, "c": [[], {}]},
    [1, [2, {"x": "y, z: [{}]", "\\": '"\\"'}], None, True],
    "text",
    {"ä": "\u20ac \U0001f600", "t": "\t\n"},
]


@pytest.mark.parametrize("value", VALUES, ids=str)
@pytest.mark.parametrize("is_ascii", [True, False])
def test_json_is_indented_as_python_does_it(value: object, is_ascii: bool) -> None:
    body = json.dumps(value, ensure_ascii=is_ascii, separators=(" ,", " :\r\n")).encode()
    assert write(body).text == json.dumps(value, indent=2, ensure_ascii=False)


@pytest.mark.parametrize(
    "body", [b"{", b'{"a": 1} x', b"[" * 100_000, b"[" + b"9" * 5_000 + b"]", '["a"]'.encode("utf-16")]
)
def test_what_is_not_json_is_text(body: bytes) -> None:
    assert "json" not in write(body).possible


def test_a_deep_body_is_cut() -> None:
    written = write(b"[" * 900 + b"1," * 100_000 + b"1" + b"]" * 900)
    assert (written.form, len(written.text), written.is_cut) == ("json", MOST_TEXT, True)


HIDDEN = "\u202e\u2066\u200f\u061c\x1b"
VISIBLE = "\\u202e\\u2066\\u200f\\u061c\\u001b"


@pytest.mark.parametrize("path", ["/queues/jobs", "/queues/jobs/messages/1", "/queues/jobs/messages/1?as=text"])
@pytest.mark.parametrize("is_json", [True, False])
def test_characters_that_hide_others_are_visible(console: Console, client: SQClient, path: str, is_json: bool) -> None:
    body = json.dumps({HIDDEN: HIDDEN}, ensure_ascii=False) if is_json else f"total{HIDDEN}100"
    client.enq(body, queue="jobs", headers={f"name{HIDDEN}": HIDDEN}, key=f"k{HIDDEN}", unique_key=f"u{HIDDEN}")
    page = unescape(console.ask(path).text)
    assert not set(HIDDEN) & set(page)
    for shown in (f"name{VISIBLE}", f"k{VISIBLE}", f"u{VISIBLE}"):
        assert shown in page
    assert (f'"{VISIBLE}"' if is_json else f"total{VISIBLE}100") in page


def test_a_form_has_what_was_typed(console: Console, client: SQClient) -> None:
    client.enq("x", queue="jobs", headers={"h": HIDDEN[:4]})
    assert HIDDEN[:4] in console.ask("/queues/jobs/messages/1/edit").text
