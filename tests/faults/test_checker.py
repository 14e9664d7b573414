"""The checker itself: every class of error is caught in a hand-made history, and good histories pass.

A history is written as lines without the time; they happen one second after another.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .checker import Expectation, Result, Verdict, check
from .history import SECOND
from .recorder import Event, Recorder, make_body, producer_and_counter, read_body, read_history

CALM = Expectation(fault=False)
"""For histories in which nothing goes wrong on purpose."""


def judge(text: str, expectation: Expectation = CALM) -> Result:
    """Check the history in `text`."""
    lines = [line.strip() for line in text.strip().splitlines()]
    return check([Event.parse(f"{t * SECOND} {line}") for t, line in enumerate(lines)], expectation)


def sent(*values: str) -> str:
    """Return the lines of a producer that had each value confirmed."""
    return "".join(f"p enq {value} invoke rid=1\np enq {value} ok rid=1\n" for value in values)


def got(value: str, lease: str, *, stream: str = "s1", client: str = "c", attempt: int = 1) -> str:
    """Return the line of a delivery; a value's id is its counter."""
    number = value.rpartition("-")[2]
    return f"{client} deq {value} ok queue=q id={number} lease={lease} attempt={attempt} stream={stream}\n"


def acked(value: str, lease: str, answer: str = "ok") -> str:
    """Return the lines of an acknowledgement."""
    return f"c ack {value} invoke lease={lease}\nc ack {value} {answer} lease={lease}\n"


def done(value: str, lease: str) -> str:
    """Return the lines of a delivery and its acknowledgement."""
    return got(value, lease) + acked(value, lease)


DRAINED = "d drain q ok\n"


def test_a_quiet_run_is_good() -> None:
    """Everything sent was received once, in order."""
    result = judge(sent("p-1", "p-2") + done("p-1", "a") + done("p-2", "b") + DRAINED)
    assert result.verdict is Verdict.GOOD, result.summary()
    assert (result.attempted, result.confirmed, result.delivered, result.received) == (2, 2, 2, 2)


@pytest.mark.parametrize(
    ("cause", "lines"),
    [
        ("stream", "c stream s1 end how=cancel\n"),
        ("sigkill", "i fault c invoke kind=sigkill\ni fault c ok kind=sigkill\n"),
        ("sigstop", "i fault c invoke kind=sigstop\ni fault c ok kind=sigstop\n"),
        ("sigkill", "i fault server invoke kind=sigkill\ni fault server ok kind=sigkill\n"),
        ("leader-killed", "i fault cluster invoke kind=leader-killed\ni fault cluster ok kind=leader-killed\n"),
        ("nack", "c nack p-1 invoke lease=a\nc nack p-1 ok lease=a\n"),
        ("timeout", "c stream s1 open ack_timeout=1.0\n"),
    ],
)
def test_allowed_causes_of_a_repeated_delivery(cause: str, lines: str) -> None:
    """Each cause explains the second delivery, and is counted."""
    again = "c2 stream s2 open\n" + got("p-1", "b", stream="s2", client="c2", attempt=2) + acked("p-1", "b")
    result = judge(sent("p-1") + got("p-1", "a") + lines + again + DRAINED)
    assert result.verdict is Verdict.GOOD, result.summary()
    assert dict(result.duplicates) == {cause: 1}


def test_a_fault_behind_the_gateways_excuses_no_acknowledgement() -> None:
    """What was acked before is not to come again, whatever happens to the cluster."""
    fault = "i fault cluster invoke kind=leader-killed\ni fault cluster ok kind=leader-killed\n"
    again = got("p-1", "b", stream="s2", client="c2", attempt=2) + acked("p-1", "b")
    result = judge(sent("p-1") + fault + done("p-1", "a") + again + DRAINED)
    assert result.errors == {"acked_again": 1}


def test_a_fault_of_a_proxy_explains_only_streams_through_it() -> None:
    """The same second delivery is an error on a stream that does not go through the broken proxy."""
    fault = "i fault proxy invoke kind=rst\ni fault proxy ok kind=rst\n"
    for via, verdict in (("proxy", Verdict.GOOD), ("other", Verdict.BAD)):
        text = sent("p-1") + f"c stream s1 open via={via}\n" + got("p-1", "a") + fault
        result = judge(text + got("p-1", "b", stream="s2", attempt=2) + acked("p-1", "b") + DRAINED)
        assert result.verdict is verdict, result.summary()


@pytest.mark.parametrize(("target", "kind"), [("server", "sigkill"), ("proxy", "DROP"), ("c", "sigstop")])
def test_a_fault_that_healed_explains_nothing_later(target: str, kind: str) -> None:
    """A stream that was opened after the fault was over is not broken by it."""
    fault = "".join(f"i fault {target} {outcome} kind={kind}\n" for outcome in ("invoke", "ok", "healed"))
    later = got("p-1", "b", stream="s2", client="c2", attempt=2) + acked("p-1", "b")
    result = judge(sent("p-1") + fault + "c stream s1 open via=proxy\n" + got("p-1", "a") + later + DRAINED)
    assert result.errors == {"two_holders": 1}


def test_recovered_is_not_an_error() -> None:
    """A message whose producer got no answer may be there."""
    result = judge(
        "p enq p-1 invoke rid=1\np enq p-1 unknown rid=1\n" + done("p-1", "a") + DRAINED, Expectation(0, False)
    )
    assert (result.verdict, result.recovered) == (Verdict.GOOD, ["p-1"])


def test_unknown_and_absent_is_not_an_error() -> None:
    """A message whose producer got no answer may as well not be there."""
    result = judge("p enq p-1 invoke rid=1\n" + sent("p-2") + done("p-2", "a") + DRAINED)
    assert result.verdict is Verdict.GOOD, result.summary()


def test_lost_messages_are_told_by_their_place() -> None:
    """Before the first received one, between received ones, and after the last one."""
    values = [f"p-{n}" for n in range(1, 10)]
    kept = "".join(done(f"p-{n}", f"l{n}") for n in (3, 6, 7))
    result = judge(sent(*values) + kept + DRAINED)
    assert result.lost_prefix == {"p": ["p-1", "p-2"]}
    assert result.lost_middle == {"p": ["p-4", "p-5"]}
    assert result.lost_postfix == {"p": ["p-8", "p-9"]}
    assert result.errors == {"lost_prefix": 2, "lost_middle": 2, "lost_postfix": 2}
    assert result.verdict is Verdict.BAD


def test_all_lost() -> None:
    """A producer of whom nothing arrived is not overlooked."""
    result = judge(sent("p-1", "r-1") + done("p-1", "a") + DRAINED)
    assert result.lost_prefix == {"r": ["r-1"]}


def test_vanished() -> None:
    """Received by a consumer that died before it acknowledged, and nobody got it again."""
    assert judge(sent("p-1") + got("p-1", "a") + "c stream s1 end\n" + DRAINED).errors == {"vanished": 1}


def test_vanished_after_a_stale_acknowledgement() -> None:
    """An acknowledgement that took no effect settles nothing."""
    assert judge(sent("p-1") + got("p-1", "a") + acked("p-1", "a", "stale") + DRAINED).errors == {"vanished": 1}


@pytest.mark.parametrize("reopens", [0, 1])
@pytest.mark.parametrize("struck_in_between", [False, True])
@pytest.mark.parametrize("target", ["server", "proxy", "c", "other"])
def test_a_client_that_asks_again_by_itself(reopens: int, struck_in_between: bool, target: str) -> None:
    """A fault has struck between the ack and its answer, so the stale one may be that of a second call."""
    fault = "".join(f"i fault {target} {outcome} kind=sigkill\n" for outcome in ("invoke", "ok", "healed"))
    invoke, stale = acked("p-1", "a", "stale").splitlines(keepends=True)
    lines = invoke + fault + stale if struck_in_between else fault + invoke + stale
    opened = f"c stream s1 open reopens={reopens} via=proxy\n"
    result = judge(opened + sent("p-1") + got("p-1", "a") + lines + DRAINED)
    assert result.errors == ({} if reopens and struck_in_between and target != "other" else {"vanished": 1})


@pytest.mark.parametrize(
    "lines",
    [
        got("p-1", "a") + acked("p-1", "a", "unknown"),
        got("p-1", "a") + acked("p-1", "a", "unknown") + acked("p-1", "a", "stale"),
        got("p-1", "a") + "c ack p-1 invoke lease=a\n",
        "c stream s1 open no_ack=1\n" + got("p-1", ""),
    ],
)
def test_settled_without_an_answer(lines: str) -> None:
    """An unanswered acknowledgement may have taken effect, and a delivery without one is settled by itself."""
    result = judge(sent("p-1") + lines + DRAINED)
    assert result.verdict is Verdict.GOOD, result.summary()


@pytest.mark.parametrize(
    "sends", ["", "p enq p-1 invoke rid=1\np enq p-1 fail rid=1\n", "p enq p-1 invoke\np enq p-1 fail\n"]
)
def test_invented(sends: str) -> None:
    """Received, but never attempted or certainly refused."""
    assert judge(sent("p-2") + sends + done("p-1", "a") + done("p-2", "b") + DRAINED).errors == {"invented": 1}


def test_refused_after_an_unknown_attempt_may_be_there() -> None:
    """Only a message of which every attempt was refused is certainly not there."""
    sends = "p enq p-1 invoke rid=1\np enq p-1 unknown rid=1\np enq p-1 invoke rid=1\np enq p-1 fail rid=1\n"
    assert judge(sent("p-2") + sends + done("p-1", "a") + done("p-2", "b") + DRAINED).recovered == ["p-1"]


def test_altered_bodies_are_invented() -> None:
    """A body that was changed on its way does not pass for the message it was."""
    body = make_body("p-1", 100)
    assert len(body) == 100
    assert read_body(body) == "p-1"
    assert read_body(make_body("p-1")) == "p-1"
    for altered in (body[:-1], body[:20] + b"x" + body[21:], b"p-2" + body[3:], b"", b"\xff\x00"):
        assert read_body(altered).startswith("!")
    assert judge(sent("p-2") + done(read_body(body[:-1]), "a") + done("p-2", "b") + DRAINED).errors == {"invented": 1}


def test_duplicated_without_a_cause_on_one_stream() -> None:
    """The same stream gets it twice, although it gave nothing back."""
    text = sent("p-1") + got("p-1", "a") + got("p-1", "b", attempt=2) + acked("p-1", "b")
    assert judge(text + DRAINED).errors == {"duplicated": 1}


def test_a_cause_after_the_repetition_is_none() -> None:
    """The stream ended only after another one had the message."""
    text = sent("p-1") + got("p-1", "a") + got("p-1", "b", stream="s2", attempt=2) + "c stream s1 end\n"
    assert judge(text + acked("p-1", "b") + DRAINED).errors == {"two_holders": 1}


def test_copies_of_a_repeated_send() -> None:
    """Two ids for one message: allowed only when it was sent twice without a request id."""
    twice = "p enq p-1 invoke\np enq p-1 unknown\np enq p-1 invoke\np enq p-1 ok\n"
    second = "c deq p-1 ok queue=q id=2 lease=b attempt=1 stream=s1\n" + acked("p-1", "b")
    result = judge(twice + done("p-1", "a") + second + DRAINED)
    assert (result.verdict, dict(result.duplicates)) == (Verdict.GOOD, {"sent again": 1})
    for sends in (sent("p-1"), twice.replace("invoke", "invoke rid=1").replace("unknown", "unknown rid=1")):
        assert judge(sends + done("p-1", "a") + second + DRAINED).errors == {"duplicated": 1}


def test_acked_again() -> None:
    """A server may deliver twice, but never after it has confirmed the acknowledgement: no cause excuses that."""
    fault = "i fault server invoke kind=sigkill\ni fault server ok kind=sigkill\n"
    healed = "i fault server healed kind=sigkill\n"
    again = got("p-1", "b", stream="s2") + acked("p-1", "b")
    for restart in (fault + "c stream s2 open\n" + healed, fault + healed + "c stream s2 open\n"):
        assert judge(sent("p-1") + done("p-1", "a") + restart + again + DRAINED).errors == {"acked_again": 1}
    unseen = "c stream s2 open reopens=1\n"
    assert judge(unseen + sent("p-1") + done("p-1", "a") + fault + again + DRAINED).errors == {"acked_again": 1}


@pytest.mark.parametrize(
    "over",
    [
        "c stream s1 end how=cancel\n",
        "i fault server invoke kind=sigkill\ni fault server ok kind=sigkill\n",
        "i fault c1 invoke kind=sigstop\ni fault c1 ok kind=sigstop\ni fault c1 healed kind=sigstop\n",
    ],
)
def test_a_late_reader_is_no_error(over: str) -> None:
    """A client reads a message that was sent to it long before its stream was over; it was another's meanwhile."""
    second = got("p-1", "b", stream="s2", client="c2", attempt=2)
    first = got("p-1", "a", client="c1")
    for acknowledged in (second + first + acked("p-1", "b"), second + acked("p-1", "b") + first):
        result = judge("c stream s1 open\n" + sent("p-1") + over + "c stream s2 open\n" + acknowledged + DRAINED)
        assert result.verdict is Verdict.GOOD, result.summary()
        assert dict(result.duplicates) == {"late": 1}


def test_inversion_on_one_stream() -> None:
    """A younger message first."""
    text = sent("p-1", "p-2") + done("p-2", "b") + done("p-1", "a")
    assert judge(text + DRAINED).inversions == ["p-1"]
    assert judge(text + DRAINED, Expectation(fault=False, ordered=False)).verdict is Verdict.GOOD


def test_inversion_over_the_streams_of_one_consumer() -> None:
    """With one consumer the order holds from one stream to the next."""
    text = sent("p-1", "p-2") + done("p-2", "b") + got("p-1", "a", stream="s2") + acked("p-1", "a") + DRAINED
    assert judge(text, Expectation(fault=False, one_consumer=True)).inversions == ["p-1"]
    assert judge(text).verdict is Verdict.GOOD


def test_given_back_messages_are_no_inversion() -> None:
    """A message that was delivered before returns to its old place: after younger ones that were under way."""
    text = sent("p-1", "p-2") + done("p-2", "b") + got("p-1", "a", attempt=2) + acked("p-1", "a") + DRAINED
    assert judge(text).verdict is Verdict.GOOD


def test_unsent_messages_are_no_inversion() -> None:
    """Another stream that is cancelled gives back what it was not sent yet, as if it had never been delivered."""
    before, after = done("p-2", "b"), done("p-1", "a") + DRAINED
    cancel = "c stream s2 end how=cancel\n"
    assert judge(sent("p-1", "p-2") + before + cancel + after).verdict is Verdict.GOOD
    assert judge(sent("p-1", "p-2") + cancel + before + after).inversions == ["p-1"]
    assert judge(sent("p-1", "p-2") + before + after.replace(DRAINED, cancel + DRAINED)).inversions == ["p-1"]
    one_consumer = Expectation(fault=False, one_consumer=True)
    assert judge(sent("p-1", "p-2") + before + cancel + after, one_consumer).inversions == ["p-1"]


def test_two_holders() -> None:
    """Another stream gets it while the first one holds it."""
    text = sent("p-1") + got("p-1", "a") + got("p-1", "b", stream="s2", attempt=2)
    result = judge(text + acked("p-1", "b") + DRAINED)
    assert result.errors == {"two_holders": 1}


def test_one_lease_on_two_streams() -> None:
    """A lease is new at each delivery, whatever happened to the first stream."""
    text = sent("p-1") + got("p-1", "a") + "c stream s1 end\n" + got("p-1", "a", stream="s2", attempt=2)
    assert judge(text + acked("p-1", "a") + DRAINED).errors == {"two_holders": 1}


@pytest.mark.parametrize(
    ("text", "expectation", "doubt"),
    [
        (sent("p-1") + done("p-1", "a"), CALM, "not drained"),
        (sent("p-1") + done("p-1", "a") + "d drain q fail\n", CALM, "not drained"),
        (sent("p-1") + done("p-1", "a") + DRAINED + "d drain r fail\n", CALM, "not drained"),
        (sent("p-1") + done("p-1", "a") + DRAINED, Expectation(), "no fault took effect"),
        (sent("p-1") + done("p-1", "a") + "i fault c invoke kind=sigkill\n" + DRAINED, Expectation(), "no fault"),
        (sent("p-1") + done("p-1", "a") + DRAINED, Expectation(2, fault=False), "only 1 of 2"),
    ],
)
def test_a_run_that_proves_nothing(text: str, expectation: Expectation, doubt: str) -> None:
    """Not drained, no fault, too few messages: unknown, which is not good."""
    result = judge(text, expectation)
    assert result.verdict is Verdict.UNKNOWN
    assert doubt in result.summary()


def test_what_was_not_drained_is_not_called_lost() -> None:
    """It may still be in the server; but other errors of such a run are errors."""
    assert judge(sent("p-1", "p-2") + done("p-1", "a")).errors == {}
    assert judge(sent("p-1") + done("p-1", "a") + done("p-1", "b")).verdict is Verdict.BAD


def test_a_history_survives_its_file(tmp_path: Path) -> None:
    """What is written is what is read, over several files and in the order of time; a torn last line is passed over."""
    with Recorder(tmp_path, "p") as producer, Recorder(tmp_path, "c") as consumer:
        producer.write("enq", "p-1", "invoke", rid=1)
        consumer.write("deq", "p-1", "ok", lease="a b=c/%20", queue="q")
        producer.write_all("enq", [("p-2", {}), ("p-3", {})], "invoke")
    with (tmp_path / "c.history").open("a") as file:
        file.write("12 c deq p-")
    events = read_history(tmp_path)
    assert [(event.client, event.value) for event in events] == [("p", "p-1"), ("c", "p-1"), ("p", "p-2"), ("p", "p-3")]
    assert events[1].facts["lease"] == "a b=c/%20"
    assert events[2].t == events[3].t
    assert producer_and_counter("a-b-12") == ("a-b", 12)
