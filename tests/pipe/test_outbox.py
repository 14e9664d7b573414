"""What waits to be sent over a pipe or answered, without a pipe."""

from __future__ import annotations

import math
from typing import Any

import pytest

from stiqueue.client.calls.outbox import MOST_OF_A_KIND, MOST_UNANSWERED, Outbox
from stiqueue.client.calls.parcel import Item, tell
from stiqueue.errors import QueueFull, StiQueueError, Unavailable
from stiqueue.v1 import pipe_pb2 as pb
from stiqueue.v1 import queue_pb2

KIND = "kind"


class Box(Outbox):
    """An outbox with a pipe."""

    def reopen(self) -> None:
        self.pipe = self.open()

    def next(self) -> pb.PipeRequest | None:
        return self.take(self.pipe)

    def lose_pipe(self, error: Unavailable) -> None:
        tell(self.lose(error))
        self.reopen()


class Asked:
    """An item, and what came of it."""

    def __init__(self, box: Box, body: str, kind: str | None = KIND, tries: float = math.inf) -> None:
        request = pb.PipeRequest(enq=queue_pb2.EnqRequest(bodies=[body.encode()], request_id=f"id of {body}"))
        self.outcomes: list[Any] = []
        self.item = Item(request, kind, self._answered, tries)
        box.put(self.item)

    def _answered(self, response: Any, place: int, error: Exception | None) -> None:
        self.outcomes.append(response.first_id + place if error is None else error)


def bodies(request: pb.PipeRequest | None) -> list[str]:
    return [] if request is None else [body.decode() for body in request.enq.bodies]


def take_all(box: Box) -> list[pb.PipeRequest]:
    taken = []
    while (request := box.next()) is not None:
        copy = pb.PipeRequest()
        copy.CopyFrom(request)
        taken.append(copy)
    return taken


def confirm(box: Box, request: pb.PipeRequest, first_id: int) -> None:
    response = pb.PipeResponse(number=request.number, enq=queue_pb2.EnqResponse(first_id=first_id))
    tell(box.answer(response, None))


def refuse(box: Box, request: pb.PipeRequest, error: StiQueueError) -> None:
    tell(box.answer(pb.PipeResponse(number=request.number), error))


@pytest.fixture
def box() -> Box:
    box = Box()
    box.reopen()
    return box


def test_items_go_in_their_order(box: Box) -> None:
    for body in "abc":
        Asked(box, body, kind=None)
    assert [bodies(request) for request in take_all(box)] == [["a"], ["b"], ["c"]]


def test_items_of_a_kind_gather_while_others_are_on_the_way(box: Box) -> None:
    asked = [Asked(box, "a")]
    sent = [box.next()]
    asked += [Asked(box, body) for body in "bcd"]
    sent.append(box.next())
    assert [bodies(each) for each in sent] == [["a"], ["b", "c", "d"]]
    asked.append(Asked(box, "e"))
    assert MOST_OF_A_KIND == 2
    assert box.next() is None, "two of its kind are unanswered"
    assert sent[1] is not None
    confirm(box, sent[1], 7)
    assert bodies(box.next()) == ["e"]
    assert [each.outcomes for each in asked] == [[], [7], [8], [9], []]


def test_another_kind_between_them_keeps_items_apart(box: Box) -> None:
    for body, kind in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "x")):
        Asked(box, body, kind)
    assert [bodies(request) for request in take_all(box)] == [["a", "b"], ["c"], ["d"]]


def test_a_refused_parcel_is_divided_and_each_goes_under_its_own_id(box: Box) -> None:
    asked = [Asked(box, body) for body in "abc"]
    (joint,) = take_all(box)
    refuse(box, joint, QueueFull("full"))
    alone = take_all(box)
    assert [(bodies(each), each.enq.request_id) for each in alone] == [
        (["a"], "id of a"),
        (["b"], "id of b"),
        (["c"], "id of c"),
    ]
    confirm(box, alone[0], 1)
    refuse(box, alone[1], error := QueueFull("full"))
    confirm(box, alone[2], 2)
    assert [each.outcomes for each in asked] == [[1], [error], [2]]


def test_a_parcel_without_an_answer_is_sent_again_unchanged(box: Box) -> None:
    asked = [Asked(box, body) for body in "ab"]
    (joint,) = take_all(box)
    asked.append(Asked(box, "c"))
    box.lose_pipe(Unavailable("lost"))
    again, after = take_all(box)
    assert (bodies(again), again.enq.request_id) == (["a", "b"], "id of a")
    assert bodies(after) == ["c"]
    confirm(box, again, 1)
    assert [each.outcomes for each in asked] == [[1], [2], []]
    assert joint.number != again.number


def test_lost_parcels_keep_their_order_before_all_others(box: Box) -> None:
    for body in "abc":
        Asked(box, body, kind=None)
    take_all(box)
    Asked(box, "d", kind=None)
    box.lose_pipe(Unavailable("lost"))
    assert [bodies(request) for request in take_all(box)] == [["a"], ["b"], ["c"], ["d"]]


def test_a_refusal_of_a_repetition_is_no_refusal(box: Box) -> None:
    """The first try may have enqueued them, so nothing is divided and nobody hears that nothing was done."""
    asked = [Asked(box, body) for body in "ab"]
    take_all(box)
    box.lose_pipe(Unavailable("lost"))
    (again,) = take_all(box)
    refuse(box, again, QueueFull("full"))
    assert take_all(box) == []
    for each in asked:
        (error,) = each.outcomes
        assert isinstance(error, Unavailable)
        assert "unknown" in str(error)


def test_an_unavailable_answer_is_followed_by_a_pause(box: Box) -> None:
    asked = Asked(box, "a")
    (request,) = take_all(box)
    refuse(box, request, Unavailable("not now"))
    assert asked.outcomes == []
    assert box.next() is None
    pause = box.pause()
    assert pause is not None
    assert 0 < pause < 1


def test_what_must_not_be_repeated_is_told(box: Box) -> None:
    asked = Asked(box, "a", kind=None, tries=1)
    take_all(box)
    box.lose_pipe(error := Unavailable("lost"))
    assert asked.outcomes == [error]
    assert take_all(box) == []


def test_an_item_that_was_given_up_is_not_sent(box: Box) -> None:
    asked = [Asked(box, body) for body in "abc"]
    box.give_up(asked[0].item)
    box.give_up(asked[1].item)
    assert [bodies(request) for request in take_all(box)] == [["c"]]
    assert box.is_awaited()
    box.give_up(asked[2].item)
    assert not box.is_awaited()
    box.lose_pipe(Unavailable("lost"))
    assert take_all(box) == []


def test_one_that_gives_up_changes_no_parcel_on_the_way(box: Box) -> None:
    asked = [Asked(box, body) for body in "ab"]
    take_all(box)
    box.give_up(asked[0].item)
    box.lose_pipe(Unavailable("lost"))
    (again,) = take_all(box)
    assert bodies(again) == ["a", "b"], "its request id stands for both"
    confirm(box, again, 1)
    assert [each.outcomes for each in asked] == [[], [2]]


def test_an_answer_to_nothing_is_ignored(box: Box) -> None:
    assert box.answer(pb.PipeResponse(number=5, enq=queue_pb2.EnqResponse(first_id=1)), None) == []


def test_at_most_so_many_are_on_the_way(box: Box) -> None:
    for number in range(MOST_UNANSWERED + 1):
        Asked(box, str(number), kind=None)
    sent = take_all(box)
    assert len(sent) == MOST_UNANSWERED
    confirm(box, sent[5], 1)
    assert len(take_all(box)) == 1


def test_a_pipe_that_was_lost_takes_nothing_more(box: Box) -> None:
    """Its sender may be about to: what it took then would never be sent."""
    Asked(box, "a")
    tell(box.lose(Unavailable("lost")))
    assert box.next() is None
    box.reopen()
    assert bodies(box.next()) == ["a"]


def test_who_gathers_waits_no_longer_than_others_for_an_answer(box: Box) -> None:
    asked = [Asked(box, "a")]
    box.next()
    asked.append(Asked(box, "b"))
    box.next()
    Asked(box, "c")
    assert box.next() is None
    box.give_up(asked[0].item)
    assert bodies(box.next()) == ["c"]


def test_a_refusal_of_a_single_repetition_is_not_certain(box: Box) -> None:
    asked = Asked(box, "a")
    take_all(box)
    box.lose_pipe(Unavailable("lost"))
    (again,) = take_all(box)
    refuse(box, again, error := QueueFull("full"))
    assert asked.outcomes == [error]
    assert not error.is_refusal
