"""TLS and mutual TLS: good pairs work, bad ones fail with a reason, new files are picked up."""

from __future__ import annotations

import gc
import logging
import re
import shutil
import socket
import ssl
import struct
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.waiting import until

from security.conftest import Authority, secure_stub
from stiqueue import InvalidRequest, SQServer
from stiqueue.server.access import certificates
from stiqueue.server.access.certificates import CertificateFiles, Certificates
from stiqueue.server.upkeep import DAY_SECONDS, Upkeep
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1.queue_pb2_grpc import QueueServiceStub
from stiqueue.wire.handshake import shake_hands

SECONDS = 3.0


def serve(stack: ExitStack, pair: tuple[str, str], **options: Any) -> SQServer:
    return stack.enter_context(SQServer(port=0, tls_cert=pair[0], tls_key=pair[1], **options))


def why(stub: QueueServiceStub) -> str:
    """Call; return the reason why that failed, within 3 s."""
    with pytest.raises(grpc.RpcError) as failed:
        stub.Enq(pb.EnqRequest(bodies=[b"a"]), timeout=SECONDS)
    call: Any = failed.value
    assert call.code() is grpc.StatusCode.UNAVAILABLE, call.details()
    return str(call.details())


def test_a_good_certificate_works(stack: ExitStack, authority: Authority) -> None:
    server = serve(stack, authority.sign("server"))
    stub = secure_stub(stack, server.port, authority)
    assert stub.Enq(pb.EnqRequest(bodies=[b"a"]), timeout=SECONDS).first_id == 1
    call: Any = stub.Deq(pb.DeqRequest(max_messages=1))
    assert [each.body for each in call.next().messages] == [b"a"]


def test_43_the_wrong_authority(stack: ExitStack, authority: Authority, stranger: Authority) -> None:
    server = serve(stack, authority.sign("server"))
    assert "CERTIFICATE_VERIFY_FAILED" in why(secure_stub(stack, server.port, stranger))


def test_43_the_wrong_host(stack: ExitStack, authority: Authority) -> None:
    server = serve(stack, authority.sign("server", "queue.example.com"))
    assert re.search("not in peer certificate|Hostname Verification", why(secure_stub(stack, server.port, authority)))


@pytest.mark.parametrize(("begins", "ends"), [(-20, -10), (10, 20)], ids=["over", "not begun"])
def test_43_a_certificate_that_is_not_valid_now(
    stack: ExitStack, authority: Authority, monkeypatch: pytest.MonkeyPatch, begins: float, ends: float
) -> None:
    pair = authority.sign("server", begins=begins, ends=ends)
    with pytest.raises(InvalidRequest, match=r"tls_cert, tls_key: .*(expired|not yet valid)"):
        SQServer(port=0, tls_cert=pair[0], tls_key=pair[1]).start()
    # As when its time ends while the server runs.
    monkeypatch.setattr(certificates, "read_certificate", lambda *_: {"notAfter": "Jan  1 00:00:00 2096 GMT"})
    server = serve(stack, pair)
    assert "CERTIFICATE_VERIFY_FAILED" in why(secure_stub(stack, server.port, authority))


def test_43_a_plain_client_of_a_tls_server_fails_at_once(stack: ExitStack, authority: Authority) -> None:
    server = serve(stack, authority.sign("server"))
    channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{server.port}"))
    assert why(QueueServiceStub(channel))


def test_43_a_tls_client_of_a_plain_server_fails_with_a_reason(
    stack: ExitStack, server: SQServer, authority: Authority
) -> None:
    assert "WRONG_VERSION_NUMBER" in why(secure_stub(stack, server.port, authority))


@pytest.mark.parametrize("kind", ["none", "foreign", "over"])
def test_43_mutual_tls_refuses_all_but_its_own(
    stack: ExitStack, authority: Authority, stranger: Authority, kind: str
) -> None:
    server = serve(stack, authority.sign("server"), tls_client_ca=authority.path)
    shown = {
        "none": None,
        "foreign": stranger.sign("client", "me"),
        "over": authority.sign("client", "me", begins=-20, ends=-10),
    }[kind]
    why(secure_stub(stack, server.port, authority, shown))
    good = secure_stub(stack, server.port, authority, authority.sign("good", "me"))
    assert good.Enq(pb.EnqRequest(bodies=[b"a"]), timeout=SECONDS).first_id == 1


def test_43_new_files_are_picked_up_without_a_restart(
    stack: ExitStack, authority: Authority, stranger: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "stiqueue")
    pair = authority.sign("server")
    server = serve(stack, pair)
    old = secure_stub(stack, server.port, authority)
    old.Cnt(pb.CntRequest(), timeout=SECONDS)
    for path, new in zip(pair, stranger.sign("new"), strict=True):
        shutil.copy(new, path)
    secure_stub(stack, server.port, stranger).Cnt(pb.CntRequest(), timeout=SECONDS)
    old.Cnt(pb.CntRequest(), timeout=SECONDS)  # an open connection stays
    assert "read the certificate again" in caplog.text


def test_43_wrong_new_files_change_nothing(
    stack: ExitStack, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    pair = authority.sign("server")
    server = serve(stack, pair)
    Path(pair[1]).write_text("no key")
    secure_stub(stack, server.port, authority).Cnt(pb.CntRequest(), timeout=SECONDS)
    assert "the certificate stays as it was" in caplog.text


def test_43_a_certificate_that_ends_soon_is_warned_of(
    stack: ExitStack, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    serve(stack, authority.sign("server", ends=13))
    assert "ends on 20" in caplog.text


def test_43_a_server_that_runs_for_long_looks_again_each_day(
    authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    pair = authority.sign("server", ends=15)
    logger = logging.getLogger("stiqueue")
    found = Certificates(CertificateFiles(*pair), logger)
    checks, now = Upkeep(logger, 0, 1_000_000, certificates=found), time.monotonic()
    checks.tick(now + 2 * DAY_SECONDS, lambda: None)
    assert caplog.text == ""
    for path, new in zip(pair, authority.sign("other", ends=13), strict=True):
        shutil.copy(new, path)
    for days, warnings in (2.5, 0), (3.1, 1), (3.5, 1), (4.2, 2):
        checks.tick(now + days * DAY_SECONDS, lambda: None)
        assert len(re.findall("server.pem ends on 20", caplog.text)) == warnings
    for path, new in zip(pair, authority.sign("over", begins=-2, ends=-1), strict=True):
        shutil.copy(new, path)
    checks.tick(now + 6 * DAY_SECONDS, lambda: None)
    assert "certificate has expired" in caplog.text


def test_a_certificate_that_ends_later_is_not(
    stack: ExitStack, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    serve(stack, authority.sign("server", ends=15))
    assert caplog.text == ""


def test_43_a_key_that_others_can_read_is_warned_of(
    stack: ExitStack, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    pair = authority.sign("server")
    Path(pair[1]).chmod(0o644)
    serve(stack, pair)
    assert "other users of this machine can read" in caplog.text


def test_a_key_of_another_certificate_is_refused_at_the_start(authority: Authority) -> None:
    certificate, _ = authority.sign("one")
    _, key = authority.sign("other")
    with pytest.raises(InvalidRequest, match="KEY_VALUES_MISMATCH"):
        SQServer(port=0, tls_cert=certificate, tls_key=key).start()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"tls_cert": "a"}, "set both or neither"),
        ({"tls_key": "a"}, "set both or neither"),
        ({"tls_client_ca": "a"}, "needs tls_cert"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        SQServer(port=0, **options)


def test_an_address_with_tls_but_without_tokens_is_warned_of(
    stack: ExitStack, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    serve(stack, authority.sign("server"), host="0.0.0.0")
    assert caplog.messages == ["0.0.0.0 is reachable from other machines, without tokens"]


def test_mutual_tls_is_as_good_as_tokens(
    stack: ExitStack, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    serve(stack, authority.sign("server"), host="0.0.0.0", tls_client_ca=authority.path)
    assert caplog.messages == []


def test_noise_on_a_tls_port_harms_nobody(stack: ExitStack, authority: Authority) -> None:
    server = serve(stack, authority.sign("server"))
    with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as noise:
        noise.sendall(b"GET / HTTP/1.1\r\n\r\n")
        stub = secure_stub(stack, server.port, authority)
        until(lambda: len(stub.Cnt(pb.CntRequest(), timeout=SECONDS).queues), 0)


def test_a_connection_that_is_reset_before_the_handshake_is_closed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname(), SECONDS) as connection:
            accepted, _ = listener.accept()
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing resets it
            accepted.close()
            with pytest.raises(ConnectionResetError):
                shake_hands(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), connection)
        gc.collect()  # a socket that is left open is an error of this test
