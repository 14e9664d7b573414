"""What people type into the console, and what is shown for them to type over."""

from __future__ import annotations

import http.client

import pytest

from stiqueue import InvalidRequest
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.web.addresses import id_of
from stiqueue.web.forms import seconds_of
from stiqueue.web.governing import typed
from stiqueue.web.search import Wanted
from web.console import Console


@pytest.mark.parametrize("seconds", [0.2, 1.0, 90.0, 123_456.7, 1_000_000.0, 2_592_000.0, 31_622_400.0])
def test_a_duration_in_a_form_is_read_as_it_was(seconds: float) -> None:
    assert seconds_of("ttl", typed("ttl", seconds)) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "0" * 5_000, "9" * 30, "1.5", "\u0661"])
def test_what_is_not_an_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="is not a message's id"):
        id_of(text)


@pytest.mark.parametrize("text", ["ÄRGER", "ärger", "Öl", "MIT"])
def test_a_search_is_in_any_case(text: str) -> None:
    message = pb.Message(body="ÄRGER mit Öl".encode() + b"\xff")
    assert Wanted(text).fits(message)
    assert not Wanted(text + "x").fits(message)


def test_a_large_form_is_no_log_in(console: Console) -> None:
    host, port = console.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.request("POST", "/login", "token=" + "%41" * 1_000_000, {"Origin": console.url})
    answer = connection.getresponse()
    assert (answer.status, b"Type a token." in answer.read()) == (400, True)
    connection.close()
