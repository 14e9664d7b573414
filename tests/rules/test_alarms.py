"""Alarms: the earliest are found without sorting all."""

from __future__ import annotations

import heapq
import random

import pytest

from stiqueue.rules.alarms import Alarms


@pytest.mark.parametrize("seed", range(20))
def test_the_first_alarms_are_the_earliest(seed: int) -> None:
    chance = random.Random(seed)
    alarms: Alarms[int, str] = Alarms()
    for _ in range(300):
        key = chance.randrange(60)
        if chance.random() < 0.3:
            alarms.cancel(key)
        else:
            alarms.set(key, float(chance.randrange(20)), str(key))
    expected = sorted((when, int(value)) for when, value in alarms.items())
    for most in (0, 1, 7, 30, 1_000):
        assert alarms.first(most) == expected[:most]
    heap, found = alarms.first(None), []
    while heap:
        when, key = heapq.heappop(heap)
        if alarms.when(key) == when and (when, key) not in found[-1:]:
            found.append((when, key))
    assert found == expected
    assert len(alarms) == len(expected)
