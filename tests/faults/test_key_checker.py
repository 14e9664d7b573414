"""The checker of keys: each kind of bad history is bad, and each kind of bad luck is not."""

from __future__ import annotations

import pytest

from .key_checker import Noted, check


def noted(text: str) -> list[Noted]:
    """Read events: one a second, each "what worker key number"; missing ones are empty."""
    events: list[Noted] = []
    for at, words in enumerate(line.split() for line in text.split(",")):
        what, worker, key, number = [*words, "", "", "", ""][:4]
        events.append(Noted(float(at), what, worker, key, int(number or 0)))
    return events


GOOD = {
    "one after the other": "got a/1 k 0, done a/1 k 0, acked a/1 k 0, got b/1 k 1, done b/1 k 1, acked b/1 k 1",
    "another key meanwhile": "got a/1 k 0, got b/1 l 0, done a/1 k 0, acked a/1 k 0, got b/2 k 1, done b/2 k 1",
    "a worker was killed": "got a/1 k 0, killed a, got b/1 k 0, done b/1 k 0, got b/1 k 1, done b/1 k 1",
    "the server was killed": "got a/1 k 0, started, got b/1 k 0, done b/1 k 0, got b/1 k 1, done b/1 k 1",
    "an ack without an answer": "got a/1 k 0, done a/1 k 0, killed a, got b/1 k 1, done b/1 k 1, acked b/1 k 1",
    "an ack that was lost": "got a/1 k 0, done a/1 k 0, killed a, got b/1 k 0, done b/1 k 0, got b/1 k 1, done b/1 k 1",
}
BAD = {
    "two at a time: k 0": "got a/1 k 0, got b/1 k 0, done a/1 k 0, acked a/1 k 0, got a/1 k 1, done a/1 k 1",
    "two at a time: k 1": "got a/1 k 0, got a/2 k 1, done a/1 k 0, done a/2 k 1, acked a/2 k 1",
    "out of order: k 1 instead of 0": "got a/1 k 1, done a/1 k 1, acked a/1 k 1, got a/1 k 0, done a/1 k 0",
    "out of order: k 0 instead of 1": "got a/1 k 0, done a/1 k 0, acked a/1 k 0, got a/1 k 0, got b/1 k 1",
    "lost: k 1 to 1": "got a/1 k 0, done a/1 k 0, acked a/1 k 0, got b/1 l 0",
    "lost: k 0 to 1": "got a/1 l 0, done a/1 l 0",
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_bad_luck_is_not_wrong(text: str) -> None:
    assert check({"k": 2}, noted(text)) == []


@pytest.mark.parametrize(("said", "text"), BAD.items(), ids=BAD)
def test_what_is_wrong_is_found(said: str, text: str) -> None:
    assert any(each.startswith(said) for each in check({"k": 2}, noted(text)))


def test_a_late_note_of_the_time_before_a_start_holds_nothing() -> None:
    events = [Noted(0.0, "started"), Noted(0.5, "got", "a/1", "k", 0), Noted(2.0, "got", "b/1", "k", 0)]
    assert [each for each in check({}, events) if each.startswith("two")] == []
