"""Requests that travelled together on a pipe which is lost, when there is no other pipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
from remote.conftest import Connect, connect, kind
from support.script import LOST, Line, Script, played
from support.waiting import Call, until

from stiqueue import StiQueueError, Unavailable
from stiqueue.client.calls.outbox import MOST_OF_A_KIND
from stiqueue.errors import Unauthenticated

__all__ = ["connect", "kind"]


class OnePipe(Script):
    """A server that has pipes no more once the first has ended."""

    def __init__(self, *lines: Line) -> None:
        super().__init__(*lines)
        self._pipes = 0

    def Pipe(self, request_iterator: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        self._pipes += 1
        if self._pipes > 1:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
        yield from super().Pipe(request_iterator, context)


def outcomes_of_three(client: Any, script: Script) -> list[Any]:
    """Let three flows enqueue together while others are under way; return how each ended."""
    before = []
    for number in range(1, MOST_OF_A_KIND + 1):
        before.append(Call(client.enq, f"before {number}"))
        until(lambda number=number: len(script.asked), number)  # type: ignore[misc]
    calls = [Call(client.enq, f"{each}") for each in range(3)]
    assert not any(call.is_over(0.1) for call in calls)
    script.go.set()
    for each in before:
        each.result()
    outcomes: list[Any] = []
    for call in calls:
        try:
            outcomes.append(call.result())
        except StiQueueError as error:
            outcomes.append(error)
    return outcomes


def test_what_travelled_together_is_repeated_while_the_server_is_away(connect: Connect) -> None:
    away = Unavailable("the server is starting")
    with played(OnePipe(None, None, LOST, away, away, None)) as script:
        outcomes = outcomes_of_three(connect(script.port), script)
    assert sorted(outcomes) == [600, 601, 602]
    assert [len(request.bodies) for request in script.asked] == [1, 1, 3, 3, 3, 3]
    assert all(len(ids) == 1 for ids in script.request_ids.values())


def test_a_token_that_is_no_longer_valid_is_named(connect: Connect) -> None:
    with played(OnePipe(None, None, LOST, Unauthenticated("the call has no valid token"))) as script:
        outcomes = outcomes_of_three(connect(script.port), script)
    assert [type(outcome) for outcome in outcomes] == [Unauthenticated] * 3
    assert not any(outcome.is_refusal for outcome in outcomes)
