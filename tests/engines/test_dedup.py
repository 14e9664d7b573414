"""What is remembered of requests, and for how long."""

from __future__ import annotations

import pytest

from stiqueue.rules.recent import REMEMBERED_SECONDS, SPANS, Recent, pack_ids, unpack_ids

STEP = REMEMBERED_SECONDS / SPANS


@pytest.mark.parametrize("moment", [0.0, 1.0, STEP - 0.1, STEP, 2.5 * STEP, 1_000 * STEP])
def test_remembered_for_its_time_and_at_most_a_step_longer(moment: float) -> None:
    recent: Recent[int] = Recent(0.0)
    recent.remember("jobs", "a", 7, moment)
    assert recent.get("jobs", "a", moment + REMEMBERED_SECONDS - 0.1) == 7
    assert recent.get("jobs", "a", moment + REMEMBERED_SECONDS + STEP) is None


def test_an_entry_does_not_live_longer_because_others_come() -> None:
    recent: Recent[int] = Recent(0.0)
    recent.remember("jobs", "a", 7, 0.0)
    for second in range(0, int(REMEMBERED_SECONDS + STEP), 10):
        recent.remember("jobs", str(second), second, float(second))
    assert recent.get("jobs", "a", REMEMBERED_SECONDS + STEP) is None
    assert recent.get("jobs", "300", REMEMBERED_SECONDS + STEP) == 300


def test_after_a_long_silence_nothing_is_left_and_time_goes_on() -> None:
    recent: Recent[int] = Recent(0.0)
    recent.remember("jobs", "a", 7, 0.0)
    late = 100 * REMEMBERED_SECONDS
    assert recent.get("jobs", "a", late) is None
    recent.remember("jobs", "a", 8, late)
    assert recent.get("jobs", "a", late + STEP) == 8


def test_names_are_of_their_queue() -> None:
    recent: Recent[int] = Recent(0.0)
    recent.remember("jobs", "a", 7, 0.0)
    assert recent.get("job", "sa", 0.0) is None
    recent.forget("jobs", "a")
    assert recent.get("jobs", "a", 0.0) is None


@pytest.mark.parametrize("ids", [(1, 1), (1, 1_000_000), (2**53 - 1, 2**32 - 1)])
def test_packed_ids_are_what_they_were(ids: tuple[int, int]) -> None:
    assert unpack_ids(pack_ids(*ids)) == ids
