"""`SQClient` and `AsyncSQClient` with TLS and tokens: what they do, and what they say when it fails."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from support.bridge import BridgedClient, EventLoop
from support.waiting import Call

from security.conftest import Authority
from stiqueue import (
    TLS,
    AccessDenied,
    AsyncSQClient,
    InvalidRequest,
    SQClient,
    SQServer,
    Unauthenticated,
    Unavailable,
    Worker,
)

SECONDS = 20.0
SLACK = 8.0
TOKEN, WEAK = "a-good-token-0123456789", "a-weak-token-0123456789"


@pytest.fixture
def tokens(tmp_path: Path) -> str:
    path = tmp_path / "tokens"
    path.touch(0o600)
    path.write_text(f"{TOKEN} admin\n{WEAK} peek")
    return str(path)


@pytest.fixture
def server(authority: Authority, tokens: str, stack: ExitStack) -> SQServer:
    certificate, key = authority.sign("server")
    return stack.enter_context(SQServer(port=0, tls_cert=certificate, tls_key=key, tokens=tokens))


def test_everything_works_over_tls_with_a_token(server: SQServer, authority: Authority) -> None:
    with SQClient("localhost", server.port, tls=authority.path, token=TOKEN) as client:
        assert client.enq_many(list("abc")) == 3
        assert client.deq(timeout=SECONDS) == b"a"
        assert client.ack()
        assert [bytes(each) for each in client.consume(prefetch=2, timeout=0)] == [b"b", b"c"]
        assert client.peek() == b""
        assert client.cnt() == 0


def test_everything_works_for_asyncio_as_well(server: SQServer, authority: Authority) -> None:
    async def use() -> None:
        async with AsyncSQClient("localhost", server.port, tls=authority.path, token=TOKEN) as client:
            await client.enq("a")
            message = await client.deq(timeout=SECONDS)
            assert message == b"a"
            assert await client.peek() == b""

    asyncio.run(use())


def test_the_wrong_token_is_an_error_at_once(server: SQServer, authority: Authority) -> None:
    with SQClient("localhost", server.port, tls=authority.path, token="a-wrong-token-0123456789") as client:
        for call in client.cnt, client.deq, client.peek:
            with pytest.raises(Unauthenticated) as refusal:
                call()
            assert "0123456789" not in str(refusal.value)


def test_a_token_without_the_right_is_an_error_that_names_it(server: SQServer, authority: Authority) -> None:
    with SQClient("localhost", server.port, tls=authority.path, token=WEAK) as client:
        assert client.cnt() == 0
        with pytest.raises(AccessDenied, match="no right to enq"):
            client.enq("a")
        with pytest.raises(AccessDenied, match="no right to deq"):
            client.deq(timeout=SECONDS)


def failure(port: int, **options: Any) -> Exception:
    """Return why a client failed, within the 3 s that it may take and what a busy machine adds."""
    began = time.monotonic()
    host = "localhost" if options.get("tls") else "127.0.0.1"
    with SQClient(host, port, **options) as client, pytest.raises((Unauthenticated, Unavailable)) as failed:
        client.enq("a")
    assert time.monotonic() - began <= 3 + SLACK
    return failed.value


def test_43_an_authority_that_did_not_sign_is_named_at_once(server: SQServer, stranger: Authority) -> None:
    error = failure(server.port, tls=stranger.path)
    assert isinstance(error, Unauthenticated)
    assert "CERTIFICATE_VERIFY_FAILED" in str(error)


CALLS: dict[str, Callable[[Any], object]] = {
    "enq": lambda client: client.enq("a"),
    "enq_many": lambda client: client.enq_many(["a"]),
    "deq": lambda client: client.deq(),
    "consume": lambda client: next(iter(client.consume())),
    "cnt": lambda client: client.cnt(),
    "peek": lambda client: client.peek(),
    "purge": lambda client: client.purge(),
}


@pytest.mark.scenario("server is not trusted, or does not trust")
@pytest.mark.parametrize("kind", ["SQClient", "AsyncSQClient"])
@pytest.mark.parametrize("whose", ["certificate", "token"])
def test_every_call_says_at_once_that_there_is_no_trust(
    server: SQServer, authority: Authority, stranger: Authority, kind: str, whose: str, stack: ExitStack
) -> None:
    options: dict[str, Any] = {
        "host": "localhost",
        "port": server.port,
        "timeout": 3600,  # none is tried again
        "tls": (stranger if whose == "certificate" else authority).path,
        "token": "a-wrong-token-0123456789",
    }
    client: Any
    if kind == "SQClient":
        client = stack.enter_context(SQClient(**options))
    else:
        loop = EventLoop()
        stack.callback(loop.close)
        client = stack.enter_context(BridgedClient(loop, **options))
    for call in CALLS.values():
        with pytest.raises(Unauthenticated, match="CERTIFICATE_VERIFY_FAILED" if whose == "certificate" else "token"):
            Call(call, client).result()


def test_a_worker_that_is_not_trusted_says_so(server: SQServer, stranger: Authority) -> None:
    worker = Worker(print, host="localhost", port=server.port, tls=stranger.path, timeout=3600)
    with pytest.raises(Unauthenticated, match="CERTIFICATE_VERIFY_FAILED"):
        Call(worker.run).result()


def test_43_the_wrong_host_is_named_at_once_and_can_be_told(authority: Authority, stack: ExitStack) -> None:
    certificate, key = authority.sign("server", "queue.example.com")
    server = stack.enter_context(SQServer(port=0, tls_cert=certificate, tls_key=key))
    assert isinstance(failure(server.port, tls=authority.path), Unauthenticated)
    tls = TLS(authority.path, server_name="queue.example.com")
    with SQClient("localhost", server.port, tls=tls) as client:
        assert client.cnt() == 0


@pytest.fixture(params=["SQClient", "AsyncSQClient"])
def connect(request: pytest.FixtureRequest, stack: ExitStack) -> Callable[..., Any]:
    """Make clients of both kinds."""
    if request.param == "SQClient":
        return lambda **options: stack.enter_context(SQClient(**options))
    loop = EventLoop()
    stack.callback(loop.close)
    return lambda **options: stack.enter_context(BridgedClient(loop, **options))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_43_tls_to_a_plain_port_is_an_error_at_once_that_says_so(
    authority: Authority, connect: Callable[..., Any], call: Callable[[Any], Any]
) -> None:
    with SQServer(port=0) as plain:
        client = connect(port=plain.port, tls=authority.path, timeout=3600)
        with pytest.raises(Unauthenticated, match="seems to speak no TLS; leave out tls"):
            Call(call, client).result()


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mutual"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_43_no_tls_to_a_tls_port_is_an_error_at_once_that_says_so(
    authority: Authority,
    stack: ExitStack,
    connect: Callable[..., Any],
    call: Callable[[Any], Any],
    host: str,
    mutual: bool,
) -> None:
    certificate, key = authority.sign("server")
    demands = {"tls_client_ca": authority.path} if mutual else {}
    server = stack.enter_context(SQServer(port=0, tls_cert=certificate, tls_key=key, **demands))
    client = connect(host=host, port=server.port, timeout=3600)
    with pytest.raises(Unauthenticated, match="seems to speak TLS; write tls="):
        Call(call, client).result()


def test_43_a_worker_without_tls_says_so(server: SQServer) -> None:
    with pytest.raises(Unauthenticated, match="seems to speak TLS"):
        Call(Worker(print, port=server.port, timeout=3600).run).result()


def test_43_a_server_that_hangs_up_is_not_taken_for_one_with_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            with suppress(OSError):  # the listener is closed
                while True:
                    listener.accept()[0].close()

        hanging_up = threading.Thread(target=hang_up)
        hanging_up.start()
        try:
            with SQClient(port=listener.getsockname()[1], timeout=0.5) as client, pytest.raises(Unavailable):
                client.cnt()
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            hanging_up.join(SECONDS)


def test_a_server_that_is_not_there_is_told_how_to_start(connect: Callable[..., Any]) -> None:
    with pytest.raises(
        Unavailable, match=r"Connection refused( \(111\))?; is a server running there\? `stiqueue serve` starts one"
    ):
        connect(port=1, timeout=0.1).cnt()


def test_43_mutual_tls(authority: Authority, stranger: Authority, stack: ExitStack) -> None:
    certificate, key = authority.sign("server")
    server = stack.enter_context(SQServer(port=0, tls_cert=certificate, tls_key=key, tls_client_ca=authority.path))
    mine, my_key = authority.sign("client", "me")
    with SQClient("localhost", server.port, tls=TLS(authority.path, mine, my_key)) as client:
        assert client.enq("a") == 1
    failure(server.port, tls=authority.path, timeout=1.0)
    foreign, foreign_key = stranger.sign("client", "me")
    failure(server.port, tls=TLS(authority.path, foreign, foreign_key), timeout=1.0)


def test_a_token_stays_within_this_machine_without_tls(tokens: str) -> None:
    with SQServer(port=0, tokens=tokens) as server, SQClient(port=server.port, token=TOKEN) as client:
        client.enq("a")
    with pytest.raises(InvalidRequest, match="tls is needed"):
        SQClient("queue.example.com", token=TOKEN)


@pytest.mark.parametrize("token", ["", " ", "two\nlines", "tökén"])
def test_what_cannot_be_a_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequest, match="token: it is not a line of ASCII"):
        SQClient(token=token)


@pytest.mark.parametrize(
    ("tls", "why"),
    [(TLS(cert="a"), "together or not at all"), ("absent.pem", "No such file"), (TLS(ca="absent.pem"), "No such file")],
)
def test_tls_that_cannot_be_is_refused_by_the_first_call(tls: Any, why: str) -> None:
    with SQClient(tls=tls) as client, pytest.raises(InvalidRequest, match=why):
        client.cnt()


def test_no_token_is_shown(tokens: str) -> None:
    with SQClient(token=TOKEN, timeout=0.2, port=1) as client:
        assert TOKEN not in repr(client) + repr(vars(client)) + repr(client._session._make_transport)
        with pytest.raises(Unavailable) as failed:
            client.cnt()
    assert TOKEN not in str(failed.value)
