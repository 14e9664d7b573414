"""Messages that are kept together leave as they came, however many at a time."""

from __future__ import annotations

import pytest

from stiqueue.rules.entry import Properties
from stiqueue.rules.run import Run

BODIES = [b"a", b"bb", b"", b"dddd", b"e"]


def run_of(*bodies: bytes, headers_bytes: int = 0) -> Run:
    return Run(7, bodies, Properties(1_000, headers_bytes=headers_bytes), attempt=2)


def test_what_it_knows_of_itself() -> None:
    run = run_of(*BODIES, headers_bytes=3)
    assert (len(run), run.ids, run.last_id, run.size) == (5, range(7, 12), 11, 8 + 5 * 3)
    assert run.bodies == BODIES
    assert run.head() == (7, b"a", 2, run.properties)


@pytest.mark.parametrize("most", [0, 1, 2, 3, 5, 9])
def test_it_is_taken_apart_in_order(most: int) -> None:
    run = run_of(*BODIES)
    taken, size = run.take(most, 1_000)
    assert [(entry.id, entry.body) for entry in taken] == list(zip(range(7, 12), BODIES[:most], strict=False))
    assert size == sum(map(len, BODIES[:most]))
    assert run.bodies == BODIES[most:]
    assert run.first_id == 7 + len(taken)


@pytest.mark.parametrize(("room", "number"), [(-1, 0), (0, 0), (1, 1), (2, 1), (3, 3), (6, 3), (7, 4), (8, 5)])
def test_no_more_is_taken_than_there_is_room_for(room: int, number: int) -> None:
    taken, size = run_of(*BODIES).take(10, room)
    assert (len(taken), size) == (number, sum(map(len, BODIES[:number])))


def test_headers_count() -> None:
    taken, size = run_of(*BODIES, headers_bytes=3).take(10, 9)
    assert ([entry.body for entry in taken], size) == ([b"a", b"bb"], 9)


@pytest.mark.parametrize("start", range(6))
@pytest.mark.parametrize("most", [None, 0, 1, 3, 9])
def test_it_can_be_looked_at_from_anywhere(start: int, most: int | None) -> None:
    expected = list(zip(range(7, 12), BODIES, strict=True))[start:][:most]
    assert [(entry.id, entry.body) for entry in run_of(*BODIES).entries(start, most)] == expected
