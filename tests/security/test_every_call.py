"""Every call with every right, and with a token or a certificate that is good no more: faults 42 and 43."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.waiting import until
from support.wire import refused

from security.conftest import Authority, secure_channel
from security.holder import CALLS, OTHERS, QUEUE, Holder
from stiqueue import SQServer
from stiqueue.server.access.tokens import Tokens

DENIED = grpc.StatusCode.PERMISSION_DENIED
UNKNOWN = grpc.StatusCode.UNAUTHENTICATED
ALLOWED = {"enq": {"enq"}, "deq": {"deq", "ack"}, "peek": {"cnt", "peek"}, "admin": set(CALLS)}
"""Which of our calls each right is for."""
NAMES_NO_QUEUE = {"ack", "cnt"}
"""Whoever has a lease was given the message; counts of all queues are of those that the token may see."""
ADMIN = "admin-of-all-0123456789"
TRIES = 2_000


def token(right: str, queues: str) -> str:
    return f"{right}-{queues}-0123456789"


FILE = f"{ADMIN} admin\n" + "".join(
    f"{token(right, queues)} {right} {queues}\n" for right in ALLOWED for queues in ("jobs.*", "mail")
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.touch(0o600)
    file.write_text(FILE)
    return file


@pytest.fixture
def channel(file: Path) -> Iterator[grpc.Channel]:
    with SQServer(port=0, tokens=str(file)) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        Holder(channel, ADMIN).enq(QUEUE, b"kept")
        yield channel


def state(admin: Holder) -> tuple[Any, list[bytes]]:
    """Return all that a call could change."""
    return admin.cnt(), [each.message.body for each in admin.peek(QUEUE)]


def assert_refused(
    channel: grpc.Channel, token: str, call: Callable[[Holder], object], code: grpc.StatusCode, reason: str
) -> None:
    """Check that a call fails, shows nothing of its token, and changes nothing."""
    admin = Holder(channel, ADMIN)
    before = state(admin)
    with refused(code, reason) as refusal:
        call(Holder(channel, token))
    assert token not in refusal.text
    assert state(admin) == before


@pytest.mark.parametrize("right", ALLOWED)
def test_42_each_right_is_for_its_calls_and_its_queues_alone(channel: grpc.Channel, right: str) -> None:
    for queues in "jobs.*", "mail":
        for name, call in CALLS.items():
            if name in ALLOWED[right] and (queues == "jobs.*" or name in NAMES_NO_QUEUE):
                call(Holder(channel, token(right, queues)))
            else:
                assert_refused(channel, token(right, queues), call, DENIED, "ACCESS_DENIED")
        for call in OTHERS.values():
            call(Holder(channel, token(right, queues)))


def test_42_an_ack_brings_nothing_of_a_queue_that_is_for_others(channel: grpc.Channel) -> None:
    """Not even to somebody who knows a lease of it."""
    owner, stranger = Holder(channel, token("deq", "jobs.*")), token("deq", "mail")
    Holder(channel, ADMIN).enq(QUEUE, b"next")
    stream = owner.stream(QUEUE)
    (message,) = next(stream).messages
    assert_refused(channel, stranger, lambda holder: holder.exchange(message.lease_id), DENIED, "ACCESS_DENIED")
    assert Holder(channel, stranger).exchange("unknown") == []
    assert owner.exchange(message.lease_id) == [b"next"]
    stream.cancel()


def test_42_a_token_that_was_taken_away_is_good_for_nothing(channel: grpc.Channel, file: Path) -> None:
    """As if it had never been; health asks for none."""
    revoked = token("admin", "jobs.*")
    file.write_text("".join(line for line in FILE.splitlines(keepends=True) if not line.startswith(revoked)))

    def is_refused() -> bool:
        try:
            Holder(channel, revoked).cnt()
        except grpc.RpcError as error:
            return error.code() is UNKNOWN
        return False

    until(is_refused)
    for call in [*CALLS.values(), OTHERS["reflection"]]:
        assert_refused(channel, revoked, call, UNKNOWN, "UNAUTHENTICATED")
    for name in "health", "watch":
        OTHERS[name](Holder(channel, revoked))


@pytest.mark.parametrize("kind", ["none", "foreign", "over", "not begun", "its authority is trusted no more"])
def test_43_without_a_good_certificate_no_call_comes_through(
    stack: ExitStack, authority: Authority, stranger: Authority, kind: str
) -> None:
    """Not even to health and reflection; and nothing is changed."""
    trusted = authority.folder / "clients.pem"
    old = kind == "its authority is trusted no more"
    shutil.copy(stranger.path if old else authority.path, trusted)
    pair = authority.sign("server")
    server = stack.enter_context(SQServer(port=0, tls_cert=pair[0], tls_key=pair[1], tls_client_ca=str(trusted)))
    shown = {
        "none": None,
        "foreign": stranger.sign("client", "me"),
        "over": authority.sign("client", "me", begins=-20, ends=-10),
        "not begun": authority.sign("client", "me", begins=10, ends=20),
    }.get(kind, stranger.sign("client", "me"))
    if old:
        Holder(secure_channel(stack, server.port, authority, shown), None).enq(QUEUE, b"before")
        shutil.copy(authority.path, trusted)
    good = Holder(secure_channel(stack, server.port, authority, authority.sign("good", "me")), None)
    good.enq(QUEUE, b"kept")
    before = state(good)
    bad = Holder(secure_channel(stack, server.port, authority, shown), None)
    for call in (CALLS | OTHERS).values():
        with pytest.raises(grpc.RpcError) as failed:
            call(bad)
        assert failed.value.code() is grpc.StatusCode.UNAVAILABLE
    assert state(good) == before


def test_42_it_takes_as_long_to_refuse_any_wrong_token(file: Path) -> None:
    """Wrong in its first byte or in its last: over 2,000 tries of each, in turn, the medians differ by 20 % at most."""
    tokens = Tokens(str(file), SQServer(port=0).logger)
    wrong = ["X" + ADMIN[1:], ADMIN[:-1] + "X"]
    took: list[list[float]] = [[], []]
    for _ in range(TRIES):
        for text, seconds in zip(wrong, took, strict=True):
            began = time.perf_counter()
            assert tokens.find(text) is None
            seconds.append(time.perf_counter() - began)
    first, last = map(statistics.median, took)
    assert abs(first - last) <= 0.2 * max(first, last)
