"""Abuse of the port: oversize 36, garbage 37, fuzz 38, slow calls 40, the address 44, names 45."""

from __future__ import annotations

import contextlib
import os
import random
import re
import selectors
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from google.protobuf.duration_pb2 import Duration

from stiqueue.limits import MESSAGE_ROOM
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1.queue_pb2_grpc import QueueServiceStub

from .frames import PREFACE
from .goodness import GoodClient, descriptors, resident_bytes, threads, usual_p99
from .processes import ServerProcess, wait_until
from .run import Run

MIB = 1 << 20
LIMIT = 4 * MIB - MESSAGE_ROOM
SECONDS = 10.0
SERVICE = "/stiqueue.v1.QueueService"
BUSY_P99 = 0.25
"""A p99 below this is good whatever it was before: 50 ms, and room for a machine that does other work."""
REFUSAL_SECONDS = 5.0
"""How long refusing a request of 100 MiB may take: 1 s, and room for such a machine."""


def assert_undisturbed(good: GoodClient, before: float, factor: float = 2.0) -> None:
    """Check that no call of a good client failed, and that they were about as fast as before."""
    print(f"good client: {len(good.seconds)} calls, p99 {good.p99 * 1000:.1f} ms, before {before * 1000:.1f} ms")
    assert good.failures == []
    assert good.p99 <= max(factor * before, BUSY_P99)


def lines_per_second(server: ServerProcess, lines_before: int, seconds: float) -> float:
    return (len(server.log.splitlines()) - lines_before) / max(1.0, seconds)


def wait_for_descriptors(server: ServerProcess, before: int) -> None:
    """Wait until a server has no more descriptors than before, but for a few of other clients."""
    wait_until(lambda: descriptors(server.pid) <= before + 5, SECONDS, f"descriptors of {server.name}")


# -- 36 ---------------------------------------------------------------------------------------------------------------


def enq_code(run: Run, **fields: Any) -> tuple[str, float]:
    """Enqueue; return how that ended, and after how many seconds."""
    request = pb.EnqRequest(**fields)
    stub = run.stub()
    began = time.monotonic()
    try:
        stub.Enq(request, timeout=SECONDS, wait_for_ready=True)
    except grpc.RpcError as error:
        call: Any = error
        return call.code().name, time.monotonic() - began
    return "OK", time.monotonic() - began


def test_36_oversize(run: Run) -> None:
    """A body at the limit is taken; one byte more, 100 MiB, too much together, and too many are refused.

    Within 1 s, and nothing is stored. The server's memory does not grow from round to round: what refused requests took
    is used for the next ones.
    """
    server = run.server()
    for size in (LIMIT - 1, LIMIT):
        assert enq_code(run, bodies=[bytes(size)])[0] == "OK"
    assert enq_code(run, bodies=[b""] * 100_000)[0] == "OK"
    for response in run.stub().Deq(pb.DeqRequest(no_ack=True, prefetch=10_000, wait=Duration()), timeout=SECONDS):
        assert response.messages
    run.wait_for_counts(5, ready=0)
    refused: dict[str, tuple[dict[str, Any], str]] = {
        "one byte more": ({"bodies": [bytes(LIMIT + 1)]}, "INVALID_ARGUMENT"),
        "100 MiB": ({"bodies": [bytes(100 * MIB)]}, "RESOURCE_EXHAUSTED"),
        "5 of 1 MiB": ({"bodies": [bytes(MIB)] * 5}, "RESOURCE_EXHAUSTED"),
        "1,000,000 empty ones": ({"bodies": [b""] * 1_000_000}, "INVALID_ARGUMENT"),
    }
    sizes: list[int] = []
    for _ in range(6):
        for what, (fields, expected) in refused.items():
            code, seconds = enq_code(run, **fields)
            print(f"{what}: {code} after {seconds * 1000:.0f} ms")
            assert code == expected, what
            assert seconds <= REFUSAL_SECONDS, what
        sizes.append(resident_bytes(server.pid))
    assert run.counts().ready == 0
    print("memory in MiB after each round:", [size // MIB for size in sizes])
    assert sizes[-1] <= 1.2 * max(sizes[:3])


def test_36_larger_than_a_consumer_can_receive(run: Run) -> None:
    """A message that breaks the stream of a consumer with a small limit goes round, and to the dead letters.

    Neither does it hold up the others: a consumer with another limit gets all that there is.
    """
    server = run.server("--max-attempts", "3")
    run.stub().Enq(pb.EnqRequest(bodies=[bytes(2 * MIB), b"small"]), timeout=SECONDS)
    with grpc.insecure_channel(server.target, [("grpc.max_receive_message_length", MIB)]) as channel:
        got: list[bytes] = []
        for _ in range(4):
            try:
                for response in QueueServiceStub(channel).Deq(
                    pb.DeqRequest(wait=Duration(), no_ack=False, max_messages=1), timeout=SECONDS
                ):
                    got += [each.body for each in response.messages]
                    run.stub().Ack(
                        pb.AckRequest(lease_ids=[each.lease_id for each in response.messages]), timeout=SECONDS
                    )
            except grpc.RpcError as error:
                call: Any = error
                assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, call.details()
    assert got == [b"small"]
    assert run.counts("default.dead").ready == 1
    run.wait_for_counts(5, ready=0, leased=0)


# -- 37 ---------------------------------------------------------------------------------------------------------------

SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
NOISE = random.Random(37).randbytes(64 << 10)
TLS_HELLO = bytes.fromhex("16030100f5010000f10303") + NOISE[:240]
LOUD = {
    "plain": {
        "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: queue\r\n\r\n",
        "64 KiB at random": NOISE,
        "TLS": TLS_HELLO,
        "garbage after the preface": PREFACE + NOISE[:4096],
    },
    "TLS": {"HTTP/1.1": b"GET / HTTP/1.1\r\nHost: queue\r\n\r\n", "plain": PREFACE + SETTINGS, "random": NOISE},
}
"""What is answered by closing the connection at once."""
SILENT = {
    "plain": {"half a preface": PREFACE[:11], "nothing": b"", "SETTINGS, then nothing": PREFACE + SETTINGS},
    "TLS": {"nothing": b"", "half a hello": TLS_HELLO[:50]},
}
"""After what nothing follows."""
LOUD_SECONDS = 3.0
"""1 s, and room for a machine that does other work."""
SILENT_SECONDS = 15.0
"""10 s, likewise."""
EACH = 200


def connect(port: int, data: bytes, count: int) -> list[socket.socket]:
    found = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port), SECONDS)
        found.append(connection)
        try:
            connection.sendall(data)
        except OSError:
            continue  # closed already
    return found


def wait_closed(connections: list[socket.socket], seconds: float, what: str) -> float:
    """Wait until the other side has closed all; return how long it took, in seconds."""
    began = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map():
            left = began + seconds - time.monotonic()
            assert left > 0, f"{what}: {len(selector.get_map())} of {len(connections)} are open after {seconds:g} s"
            for key, _ in selector.select(left):
                assert isinstance(key.fileobj, socket.socket)
                try:
                    data = key.fileobj.recv(1 << 16)
                except OSError:
                    data = b""
                if not data:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
    return time.monotonic() - began


@pytest.fixture
def certificate(tmp_path: Path) -> list[str]:
    """The options of a server with TLS."""
    authority = trustme.CA()
    signed = authority.issue_cert("localhost", "127.0.0.1")
    signed.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    (tmp_path / "server.pem").chmod(0o600)
    return ["--tls-cert", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.pem")]


@pytest.mark.timeout(120)
def test_37_garbage_on_the_port(run: Run, certificate: list[str]) -> None:
    """200 connections each of HTTP/1.1, noise, TLS where none is, plain where TLS is, and of those that fall silent.

    The loud are closed within 1 s, the silent within 10 s. The log has at most 10 lines a second, a good client's p99
    at most doubles, and the descriptors are back.
    """
    plain, secure = run.server(), run.server(*certificate, start=False)
    secure.start(ready=False)
    wait_until(lambda: "messages in memory" in secure.log, SECONDS, "a server with TLS")
    servers = {"plain": plain, "TLS": secure}
    before = usual_p99(plain.target)
    open_before = {name: descriptors(server.pid) for name, server in servers.items()}
    lines_before = {name: len(server.log.splitlines()) for name, server in servers.items()}
    began = time.monotonic()
    with GoodClient(plain.target) as good:
        silent = [
            connection
            for name, kinds in SILENT.items()
            for data in kinds.values()
            for connection in connect(servers[name].port, data, EACH)
        ]
        for name, kinds in LOUD.items():
            for what, data in kinds.items():
                took = wait_closed(connect(servers[name].port, data, EACH), LOUD_SECONDS, f"{what} at {name}")
                print(f"{what} at {name}: closed after {took * 1000:.0f} ms")
        took = wait_closed(silent, began + SILENT_SECONDS - time.monotonic(), "silent ones")
    seconds = time.monotonic() - began
    print(f"the silent were closed after {seconds:.1f} s")
    assert_undisturbed(good, before)
    for name, server in servers.items():
        assert lines_per_second(server, lines_before[name], seconds) <= 10
        wait_for_descriptors(server, open_before[name])


# -- 38 ---------------------------------------------------------------------------------------------------------------

METHODS = {
    "Enq": pb.EnqRequest,
    "Deq": pb.DeqRequest,
    "Ack": pb.AckRequest,
    "Cnt": pb.CntRequest,
    "Peek": pb.PeekRequest,
}
STREAMING = {"Deq", "Peek"}
EDGES = [0, 1, -1, 127, 128, 255, 256, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63)]
TEXTS = ["", "a", "../", "a/b", "\0", "a\nb", "\N{PARTY POPPER}", "n" * 128, "n" * 129, "x" * 10_000]
AT_ONCE = 90
"""Less than a connection may have at a time."""
STREAM_SECONDS = 0.25
"""How long a subscription that nobody ends is kept."""


def valid_request(chance: random.Random, method: str) -> Any:
    """Return a request whose fields are of the right types, with values at and beyond the edges."""
    request = METHODS[method]()
    for field in request.DESCRIPTOR.fields:
        if chance.random() < 0.5:
            continue
        if field.message_type is not None and field.message_type.name == "Duration":
            duration = getattr(request, field.name)
            duration.seconds, duration.nanos = chance.choice(EDGES), chance.choice([0, 1, -1, 10**9, -(2**31)])
        elif field.message_type is not None:  # headers
            request.headers[chance.choice(TEXTS)] = chance.choice(TEXTS)
        elif field.cpp_type in (field.CPPTYPE_STRING,):
            value: Any = chance.choice(TEXTS) if field.type == field.TYPE_STRING else chance.randbytes(10)
            getattr(request, field.name).append(value) if is_list(field) else setattr(request, field.name, value)
        elif field.cpp_type == field.CPPTYPE_BOOL:
            setattr(request, field.name, True)
        else:
            bits = 64 if "64" in {1: "32", 2: "64", 3: "u32", 4: "u64", 8: "32"}[field.cpp_type] else 32
            value = chance.choice(EDGES) % (1 << bits)
            signed = field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64, field.CPPTYPE_ENUM)
            setattr(request, field.name, value - (1 << bits) if signed and value >> (bits - 1) else value)
    return request


def is_list(field: Any) -> bool:
    return bool(getattr(field, "is_repeated", False) or getattr(field, "label", 0) == 3)


def mutated(chance: random.Random, data: bytes) -> bytes:
    """Return a request that is noise, cut, has flipped bits, unknown fields, or nested ones without end."""
    kind = chance.randrange(6)
    if kind == 0:
        return chance.randbytes(chance.randrange(200))
    if kind == 1:
        return data[: chance.randrange(len(data) + 1)]
    if kind == 2 and data:
        flipped = bytearray(data)
        for _ in range(chance.randrange(1, 5)):
            flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
        return bytes(flipped)
    if kind == 3:
        return data + b"\xfa\x3f\x03abc" + b"\xf8\x3f\x01"  # fields 1023
    if kind == 4:
        return b"\x2b" * chance.randrange(1, 5_000)  # groups within groups
    return data


def fuzz(run: Run, rounds: int) -> None:
    # What asks for little may be granted: the most that a stream may be idle is a moment.
    server = run.server("--max-queues", "50", "--max-messages", "100")
    chance = run.random
    usual_p99(server.target, 0.2)
    open_before, threads_before = descriptors(server.pid), threads(server.pid)
    codes: Counter[tuple[str, str]] = Counter()
    began = time.monotonic()
    with grpc.insecure_channel(server.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        calls = {
            (method, kind): getattr(channel, kind)(f"{SERVICE}/{method}")
            for method in [*METHODS, "None"]
            for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
        }
        for _ in range(0, rounds, AT_ONCE):
            under_way = []
            for _ in range(AT_ONCE):
                method = chance.choice(list(METHODS))
                data = mutated(chance, valid_request(chance, method).SerializeToString())
                kind = "unary_stream" if method in STREAMING else "unary_unary"
                if chance.random() < 0.05:
                    kind = chance.choice(["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
                    method = chance.choice([method, "None"])
                argument = iter([data, data]) if kind.startswith("stream") else data
                call = calls[method, kind]
                begin = call.future if kind.endswith("unary") else call
                timeout = STREAM_SECONDS if kind.endswith("stream") else SECONDS
                under_way.append((method, kind, begin(argument, timeout=timeout)))
            for method, kind, call in under_way:
                if kind.endswith("stream"):
                    with contextlib.suppress(grpc.RpcError):
                        for _ in call:
                            pass
                code = call.code()  # waits
                codes[method, code.name] += 1
                if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
                    assert "DecodeError" in call.details() or "deserializ" in call.details(), call.details()
    seconds = time.monotonic() - began
    print(f"{rounds} calls in {seconds:.0f} s: {dict(sorted(codes.items()))}")
    assert not server.has_ended
    assert "defect" not in server.log
    assert lines_per_second(server, 0, seconds) <= 10
    assert codes["Enq", "INVALID_ARGUMENT"] > rounds / 50
    counts = run.stub().Cnt(pb.CntRequest(), timeout=SECONDS).queues
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,128}", each.queue) for each in counts)

    def nothing_is_left() -> bool:
        counts = run.stub().Cnt(pb.CntRequest(), timeout=SECONDS).queues
        return not any(each.leased or each.consumers for each in counts)

    wait_until(nothing_is_left, SECONDS, "no lease and no consumer")
    wait_for_descriptors(server, open_before)
    assert threads(server.pid) <= threads_before + 3
    stub = run.stub()
    stub.Enq(pb.EnqRequest(queue="good", bodies=[b"a"]), timeout=SECONDS)
    response = next(stub.Deq(pb.DeqRequest(queue="good", no_ack=True, max_messages=1), timeout=SECONDS))
    assert response.messages[0].body == b"a"


@pytest.mark.timeout(120)
def test_38_random_requests(run: Run) -> None:
    """2,000 requests of noise, flipped bits, unknown and nested fields, edge values, methods of the wrong kind.

    No crash, no exception of ours, no thread, lease or descriptor left, at most 10 lines a second in the log.
    """
    fuzz(run, 2_000)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_38_random_requests_20_000(run: Run) -> None:
    """The same, ten times as many."""
    fuzz(run, 20_000)


# -- 40 ---------------------------------------------------------------------------------------------------------------


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def headers_of_call(method: str) -> bytes:
    """Return the header block of a call, in HPACK without compression."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"{SERVICE}/{method}",
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    return b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in fields.items()
    )


def slow_calls(port: int, count: int) -> socket.socket:
    """Begin calls of which nothing follows their headers, on one connection."""
    connection = socket.create_connection(("127.0.0.1", port), SECONDS)
    block = headers_of_call("Enq")
    calls = b"".join(frame(1, 4, 2 * number + 1, block) for number in range(count))
    connection.sendall(PREFACE + SETTINGS + calls)
    return connection


@pytest.mark.timeout(120)
def test_40_slow_calls(run: Run) -> None:
    """40 and 400 calls of headers only, 40 that send a byte now and then, 12 such connections, 64 waiting streams.

    Another client's p99 stays below 50 ms.
    """
    server = run.server()
    before = usual_p99(server.target)
    open_before = descriptors(server.pid)
    connections = [slow_calls(server.port, count) for count in (40, 400, *[100] * 12)]
    drip = slow_calls(server.port, 40)
    stub = run.stub()
    streams: list[Any] = [stub.Deq(pb.DeqRequest(queue="none")) for _ in range(64)]
    run.wait_for_counts(5, "none", consumers=64)
    with GoodClient(server.target) as good:
        for byte in b"\0\0\0":  # the beginning of a message's length
            for number in range(40):
                drip.sendall(frame(0, 0, 2 * number + 1, bytes([byte])))
            time.sleep(1.0)
    assert_undisturbed(good, before)
    for stream in streams:
        stream.cancel()
    for connection in (*connections, drip):
        connection.close()
    run.wait_for_counts(5, "none", consumers=0)
    wait_for_descriptors(server, open_before)


# -- 44 ---------------------------------------------------------------------------------------------------------------


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
EVERYWHERE = {"00000000", "0" * 32}
"""As /proc has them: IPv4, and the same in IPv6."""


def listening(pid: int) -> set[str]:
    """Return the addresses at which a process listens, as /proc has them."""
    inodes = {os.readlink(f"/proc/{pid}/fd/{each}") for each in os.listdir(f"/proc/{pid}/fd")}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.add(fields[1].rpartition(":")[0])
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("options", "addresses", "warnings"),
    [([], LOOPBACK, 0), (["--host", "0.0.0.0"], EVERYWHERE, 1)],
    ids=["by default", "for all"],
)
def test_44_the_address_by_default(tmp_path: Path, options: list[str], addresses: set[str], warnings: int) -> None:
    """Without an option the server listens on loopback alone; for all, without TLS, it warns in one line, each time."""
    command = [sys.executable, "-m", "stiqueue.sqserver", "--port", "0", "--metrics-port", "0", *options]
    log = tmp_path / "log"
    for _ in range(2):
        with log.open("wb") as out, subprocess.Popen(command, cwd=tmp_path, stderr=out) as process:
            try:
                wait_until(lambda: "messages in" in log.read_text(), SECONDS * 2, "a server", 0.05)
                found = listening(process.pid)
                assert found
                assert found <= addresses
            finally:
                process.terminate()
                process.wait(SECONDS)
        assert len(re.findall("WARNING .* is reachable from other machines", log.read_text())) == warnings


# -- 45 ---------------------------------------------------------------------------------------------------------------

NAMES = ["n" * 10_000, "a/b", "/etc/passwd", "..", "../..", "a\nb", "a\r\nb", "a\0b", "\N{PARTY POPPER}", "\x1b[31m"]


def queues(run: Run, number: int, limit: int) -> None:
    stub = run.stub()
    codes: Counter[str] = Counter()
    texts = set()
    for begin in range(0, number, 100):
        calls = [
            stub.Enq.future(pb.EnqRequest(queue=f"q{each}", bodies=[b"a"]), timeout=SECONDS)
            for each in range(begin, min(number, begin + 100))
        ]
        for call in calls:
            codes[call.code().name] += 1
            texts.add(call.details())
    assert codes == {"OK": limit, "RESOURCE_EXHAUSTED": number - limit}
    assert all(f"{limit:,}" in text and "max_queues" in text for text in texts if text)


@pytest.mark.timeout(120)
def test_45_hostile_names(run: Run, tmp_path: Path) -> None:
    """Names of paths, control characters and 10 KB, as queue, consumer, header, request id and reason.

    No file appears beside the data file, each line of the log is one line, and the server serves.
    """
    data = tmp_path / "data"
    data.mkdir()
    server = run.server("--debug", environment={"STIQUEUE_DATA": str(data / "stiqueue.db")})
    stub = run.stub()
    for name in NAMES:
        requests: list[Any] = [
            lambda name=name: stub.Enq(pb.EnqRequest(queue=name, bodies=[b"a"]), timeout=SECONDS),
            lambda name=name: stub.Enq(
                pb.EnqRequest(queue="q", bodies=[name.encode()], request_id=name[:32], headers={name[:32]: name[:32]}),
                timeout=SECONDS,
            ),
            lambda name=name: [
                stub.Ack(
                    pb.AckRequest(lease_ids=[each.lease_id], outcome=pb.OUTCOME_DEAD_LETTER, reason=name[:32]),
                    timeout=SECONDS,
                )
                for response in stub.Deq(
                    pb.DeqRequest(queue="q", max_messages=1, consumer=name[:32], wait=Duration()), timeout=SECONDS
                )
                for each in response.messages
            ],
            lambda name=name: list(stub.Peek(pb.PeekRequest(queue=name), timeout=SECONDS)),
            lambda name=name: stub.Cnt(pb.CntRequest(queues=[name]), timeout=SECONDS),
        ]
        for request in requests:
            try:
                request()
            except grpc.RpcError as error:
                call: Any = error
                assert call.code() is grpc.StatusCode.INVALID_ARGUMENT, call.details()
                assert len(call.details()) < 1_000
    assert run.counts("q.dead").ready == len(NAMES)
    assert {path.name for path in data.iterdir()} <= {f"stiqueue.db{end}" for end in ENDS}
    assert all(re.match(r"\d{4}-\d\d-\d\d .* (DEBUG|INFO|WARNING) ", line) for line in server.log.splitlines())
    assert "\x1b" not in server.log


ENDS = ("", "-wal", "-shm", "-lock", "-mark", "-reserve")


def test_45_many_queues(run: Run) -> None:
    """2,000 queues where 500 are allowed: the others are refused, naming the limit."""
    run.server("--max-queues", "500")
    queues(run, 2_000, 500)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_45_30_000_queues(run: Run) -> None:
    """By one client, where by default 10,000 are allowed."""
    run.server()
    queues(run, 30_000, 10_000)
