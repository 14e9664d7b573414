"""Tokens: who may do what, and that the others learn and change nothing."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support.waiting import until
from support.wire import refused

from security.holder import CALLS, SECONDS, Holder
from stiqueue import InvalidRequest, SQServer

ADMIN, PRODUCER = "admin-token-0123456789", "producer-0123456789"
WORKER, WATCHER = "worker-0123456789", "watch-0123456789"
FILE = f"""
# who            rights     queues
{ADMIN}          admin
{PRODUCER}       enq        jobs.*
{WORKER}         deq,peek   jobs.*,mail
{WATCHER}        peek       mail   # a person
"""

DENIED = grpc.StatusCode.PERMISSION_DENIED
UNKNOWN = grpc.StatusCode.UNAUTHENTICATED


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.touch(0o600)
    file.write_text(FILE)
    return file


@pytest.fixture
def guarded(file: Path) -> Iterator[SQServer]:
    with SQServer(port=0, tokens=str(file)) as server:
        yield server


@pytest.fixture
def channel(guarded: SQServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{guarded.port}") as channel:
        yield channel


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("token", "scheme"),
    [
        (None, ""),
        ("", "Bearer"),
        ("a-wrong-token-0123456789", "Bearer"),
        (ADMIN[:-1], "Bearer"),
        (ADMIN + "0", "Bearer"),
        (ADMIN.upper(), "Bearer"),
        (ADMIN, "Basic"),
    ],
    ids=["none", "empty", "wrong", "cut", "longer", "upper case", "another scheme"],
)
def test_42_without_a_valid_token_every_call_is_refused_and_changes_nothing(
    channel: grpc.Channel, token: str | None, scheme: str, call: Callable[[Holder], object]
) -> None:
    admin = Holder(channel, ADMIN)
    admin.enq("jobs.a", b"kept")
    with refused(UNKNOWN, "UNAUTHENTICATED") as refusal:
        call(Holder(channel, token, scheme))
    assert not token or token not in refusal.text
    assert [each.message.body for each in admin.peek("jobs.a")] == [b"kept"]


WRONG = {
    "first": "X" + ADMIN[1:],
    "last": ADMIN[:-1] + "X",
    "all": "X" * len(ADMIN),
}
"""Tokens of the right length, and where they differ."""


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_42_the_time_of_a_refusal_tells_nothing_of_the_token(channel: grpc.Channel) -> None:
    """2,000 tries of each, in turn: the same answer, and the same time within 20 %, wherever the token is wrong."""
    holders = {where: Holder(channel, token) for where, token in WRONG.items()}
    seconds: dict[str, list[float]] = {where: [] for where in WRONG}
    answers = set()
    for _ in range(2_000):
        for where, holder in holders.items():
            began = time.perf_counter()
            with pytest.raises(grpc.RpcError) as failed:
                holder.cnt()
            seconds[where].append(time.perf_counter() - began)
            call: Any = failed.value
            answers.add((call.code(), call.details(), str(call.trailing_metadata())))
    assert len(answers) == 1
    medians = {where: statistics.median(taken) for where, taken in seconds.items()}
    print({where: f"{taken * 1e6:.0f} us" for where, taken in medians.items()})
    assert max(medians.values()) <= 1.2 * min(medians.values())


def test_a_right_token_does_what_it_is_for(channel: grpc.Channel) -> None:
    producer, worker, watcher = Holder(channel, PRODUCER), Holder(channel, WORKER), Holder(channel, WATCHER)
    producer.enq("jobs.a")
    assert [each.message.body for each in worker.peek("jobs.a")] == [b"a"]
    call = worker.stream("jobs.a")
    (message,) = call.next().messages
    assert worker.ack(message.lease_id) == []
    call.cancel()
    assert watcher.cnt("mail") == {"mail": 0}


@pytest.mark.parametrize(
    ("token", "call"),
    [
        (PRODUCER, lambda holder: holder.enq("mail")),
        (PRODUCER, lambda holder: holder.enq("jobs")),
        (PRODUCER, lambda holder: holder.enq("jobs.a", ack="x")),
        (PRODUCER, lambda holder: holder.deq("jobs.a")),
        (PRODUCER, lambda holder: holder.ack()),
        (PRODUCER, lambda holder: holder.cnt()),
        (PRODUCER, lambda holder: holder.peek("jobs.a")),
        (WORKER, lambda holder: holder.enq("jobs.a")),
        (WORKER, lambda holder: holder.deq("default")),
        (WORKER, lambda holder: holder.peek("other")),
        (WATCHER, lambda holder: holder.deq("mail")),
        (WATCHER, lambda holder: holder.cnt("mail", "jobs.a")),
    ],
)
def test_42_a_token_for_something_else_is_refused_and_changes_nothing(
    channel: grpc.Channel, token: str, call: Callable[[Holder], object]
) -> None:
    admin = Holder(channel, ADMIN)
    admin.enq("jobs.a", b"kept")
    before = admin.cnt()
    with refused(DENIED, "ACCESS_DENIED"):
        call(Holder(channel, token))
    assert admin.cnt() == before


def test_the_counts_of_all_queues_are_those_that_the_token_may_see(channel: grpc.Channel) -> None:
    admin = Holder(channel, ADMIN)
    for queue in "jobs.a", "mail", "secret":
        admin.enq(queue)
    assert set(Holder(channel, WORKER).cnt()) == {"jobs.a", "mail"}
    assert set(admin.cnt()) == {"jobs.a", "mail", "secret"}


def test_a_lease_id_cannot_be_guessed_from_others(channel: grpc.Channel) -> None:
    admin = Holder(channel, ADMIN)
    for _ in range(3):
        admin.enq("mail")
    ids = [admin.stream("mail").next().messages[0].lease_id for _ in range(3)]
    assert len({each[:8] for each in ids}) == len({each[-8:] for each in ids}) == 3


def test_42_reflection_wants_a_token_and_health_does_not(channel: grpc.Channel) -> None:
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with refused(UNKNOWN, "UNAUTHENTICATED"):
        list(reflection.ServerReflectionInfo(iter([request]), timeout=SECONDS))
    answers = list(reflection.ServerReflectionInfo(iter([request]), **Holder(channel, WATCHER).options))
    assert len(answers) == 1


def test_a_token_that_is_taken_away_ends_its_streams_and_gives_back(channel: grpc.Channel, file: Path) -> None:
    admin, worker = Holder(channel, ADMIN), Holder(channel, WORKER)
    admin.enq("jobs.a")
    call = worker.stream("jobs.a")
    call.next()
    file.write_text(FILE.replace(WORKER, "another-token-0123456789"))
    with pytest.raises(grpc.RpcError) as ended:
        call.next()
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    assert admin.cnt("jobs.a") == {"jobs.a": 1}
    with refused(UNKNOWN, "UNAUTHENTICATED"):
        worker.peek("jobs.a")


def test_a_new_token_is_good_without_a_restart(channel: grpc.Channel, file: Path) -> None:
    newcomer = Holder(channel, "newcomer-0123456789")
    file.write_text(FILE + "newcomer-0123456789 enq\n")

    def accepted() -> bool:
        try:
            return newcomer.enq("jobs.a") > 0
        except grpc.RpcError as error:
            if error.code() is not UNKNOWN:
                raise
            return False

    until(accepted)


def test_a_wrong_file_leaves_the_tokens_as_they_were(
    channel: grpc.Channel, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text("nonsense")
    until(lambda: any("the tokens stay as they were" in each.getMessage() for each in caplog.records))
    assert Holder(channel, PRODUCER).enq("jobs.a") == 1


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has none"),
        ("# nothing\n", "has none"),
        ("short enq", "line 1: the token is shorter than 16"),
        ("long-enough-0123456789", "line 1: a line is TOKEN RIGHTS"),
        ("\nlong-enough-0123456789 enq,eat", "line 2: the rights are admin, deq, enq, peek"),
        ("long-enough-0123456789 enq a b", "line 1: a line is TOKEN RIGHTS"),
    ],
)
def test_a_wrong_file_is_refused_at_the_start_and_shows_no_token(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(InvalidRequest, match=why) as refusal:
        SQServer(port=0, tokens=str(file))
    assert "0123456789" not in str(refusal.value)


def test_a_missing_file_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="No such file"):
        SQServer(port=0, tokens=str(tmp_path / "absent"))


def test_a_file_that_others_can_read_is_warned_of(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.chmod(0o644)
    SQServer(port=0, tokens=str(file))
    assert "other users of this machine can read" in caplog.text


def test_42_tokens_are_not_taken_in_the_open_from_other_machines(file: Path) -> None:
    with pytest.raises(InvalidRequest, match="--tls-cert and --tls-key are needed"):
        SQServer(host="0.0.0.0", port=0, tokens=str(file))


def test_42_no_token_is_ever_logged(channel: grpc.Channel, guarded: SQServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    guarded.logger.setLevel(logging.DEBUG)
    Holder(channel, ADMIN).enq("jobs.a")
    with refused(UNKNOWN, "UNAUTHENTICATED"):
        Holder(channel, "a-wrong-token-0123456789").enq("jobs.a")
    guarded.logger.setLevel(logging.NOTSET)
    assert "0123456789" not in caplog.text + repr(guarded) + repr(guarded._guard)


def test_services_of_the_user_want_a_token_as_well(file: Path, stack: ExitStack) -> None:
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: request[::-1])

    def add(_: object, server: Any) -> None:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("own.Service", {"Rev": handler}),))

    server = stack.enter_context(SQServer(port=0, tokens=str(file), services=[(add, None)]))
    channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{server.port}"))
    reverse = channel.unary_unary("/own.Service/Rev")
    assert reverse(b"abc", **Holder(channel, WATCHER).options) == b"cba"
    with refused(UNKNOWN, "UNAUTHENTICATED"):
        reverse(b"abc", timeout=SECONDS)
