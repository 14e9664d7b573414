"""Every field out of its range, over the wire: the exact status code and reason, and nothing changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from support.waiting import until
from support.wire import drain, refused

from stiqueue import SQClient, SQServer, State
from stiqueue.limits import MESSAGE_ROOM
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1.queue_pb2_grpc import QueueServiceStub

INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
STALE = grpc.StatusCode.FAILED_PRECONDITION
UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED

MIB = 1 << 20
REQUEST_LIMIT = 4 * MIB
MESSAGE_LIMIT = REQUEST_LIMIT - MESSAGE_ROOM
DAY = 86_400
SECONDS = 20.0


@pytest.fixture(scope="module")
def server() -> Iterator[SQServer]:
    """One server for all: bad input changes nothing, which every test proves."""
    with SQServer(port=0) as server, SQClient(port=server.port) as client:
        client.enq("a", ttl=DAY)  # its thread for time is there from now on, so that no test seems to leave it behind
        client.purge()
        yield server


@pytest.fixture(autouse=True)
def _nothing_changes(stub: QueueServiceStub) -> Iterator[None]:
    """Fail a test that left anything behind."""
    yield
    assert list(stub.Cnt(pb.CntRequest(), timeout=SECONDS).queues) == []


def lasting(seconds: int = 0, nanos: int = 0) -> Duration:
    return Duration(seconds=seconds, nanos=nanos)


BAD_NAMES = {
    "a space": "a b",
    "a slash": "/",
    "a path": "../../etc/passwd",
    "a line feed": "a\n",
    "a NUL": "a\0",
    "an emoji": "\N{PARTY POPPER}",
    "an umlaut": "\xfcber",
    "a full-width letter": "\uff41",
    "a wildcard": "*",
    "129 letters": "n" * 129,
    "10 KB": "n" * 10_000,
}
bad_names = pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES.keys())


@bad_names
def test_a_bad_queue_name_is_refused_by_every_rpc(stub: QueueServiceStub, name: str) -> None:
    with refused(INVALID, "BAD_QUEUE_NAME") as refusal:
        stub.Enq(pb.EnqRequest(queue=name, bodies=[b"a"]), timeout=SECONDS)
    assert "queue" in refusal.text
    assert len(refusal.text) < 1000, "the answer repeats the attack"
    with refused(INVALID, "BAD_QUEUE_NAME"):
        drain(stub.Deq(pb.DeqRequest(queue=name), timeout=SECONDS))
    with refused(INVALID, "BAD_QUEUE_NAME"):
        stub.Cnt(pb.CntRequest(queues=["good", name]), timeout=SECONDS)
    with refused(INVALID, "BAD_QUEUE_NAME"):
        drain(stub.Peek(pb.PeekRequest(queue=name), timeout=SECONDS))


@pytest.mark.parametrize("name", ["a", "n" * 128, "A-Z_a-z.0-9", ".", "..", "-", "default"])
def test_a_good_queue_name_is_taken(stub: QueueServiceStub, client: SQClient, name: str) -> None:
    stub.Enq(pb.EnqRequest(queue=name, bodies=[b"a"]), timeout=SECONDS)
    assert client.queues().keys() == {name}
    assert client.purge(queue=name) == 1


def test_the_empty_queue_name_means_default(stub: QueueServiceStub, client: SQClient) -> None:
    stub.Enq(pb.EnqRequest(bodies=[b"a"]), timeout=SECONDS)
    assert client.queues().keys() == {"default"}
    assert client.purge() == 1


ENQ: list[tuple[str, dict[str, Any], str, str]] = [
    ("no body", {"bodies": []}, "EMPTY_BATCH", "bodies"),
    ("100,001 bodies", {"bodies": [b""] * 100_001}, "TOO_MANY_MESSAGES", "100,000"),
    ("65 headers", {"headers": {str(each): "" for each in range(65)}}, "BAD_HEADERS", "64"),
    ("a header without a key", {"headers": {"": "v"}}, "BAD_HEADERS", "key"),
    ("8,193 bytes of headers", {"headers": {"k": "v" * 8192}}, "BAD_HEADERS", "8,192"),
    ("8,193 bytes of header keys", {"headers": {"k" * 8193: ""}}, "BAD_HEADERS", "8,192"),
    ("8,194 bytes in 4,097 characters of headers", {"headers": {"k": "\xe4" * 4097}}, "BAD_HEADERS", "8,192"),
    ("1 MiB of headers", {"headers": {"k": "v" * MIB}}, "BAD_HEADERS", "8,192"),
    ("a request id of 129 bytes", {"request_id": "r" * 129}, "BAD_REQUEST_ID", "128"),
    ("a request id of 130 bytes in 65 characters", {"request_id": "\xe4" * 65}, "BAD_REQUEST_ID", "128"),
    ("a request id of 1 MiB", {"request_id": "r" * MIB}, "BAD_REQUEST_ID", "128"),
    ("priority -1", {"priority": -1}, "BAD_PRIORITY", "255"),
    ("priority 256", {"priority": 256}, "BAD_PRIORITY", "255"),
    ("the least priority", {"priority": -(2**31)}, "BAD_PRIORITY", "255"),
    ("the most priority", {"priority": 2**31 - 1}, "BAD_PRIORITY", "255"),
    ("a delay of -1 s", {"delay": lasting(-1)}, "BAD_DURATION", "delay"),
    ("a delay of -1 ns", {"delay": lasting(0, -1)}, "BAD_DURATION", "delay"),
    ("a delay of 366 days and 1 s", {"delay": lasting(366 * DAY + 1)}, "BAD_DURATION", "delay"),
    ("a delay of 10^11 s", {"delay": lasting(10**11)}, "BAD_DURATION", "delay"),
    ("the longest delay", {"delay": lasting(2**63 - 1, 2**31 - 1)}, "BAD_DURATION", "delay"),
    ("the most negative delay", {"delay": lasting(-(2**63), -(2**31))}, "BAD_DURATION", "delay"),
    ("a delay of 2e9 ns", {"delay": lasting(0, 2_000_000_000)}, "BAD_DURATION", "delay: nanos"),
    ("a ttl of 1 s and 1e9 ns", {"ttl": lasting(1, 1_000_000_000)}, "BAD_DURATION", "ttl: nanos"),
    ("a ttl of 0", {"ttl": lasting(0)}, "BAD_DURATION", "ttl"),
    ("a ttl of -1 s", {"ttl": lasting(-1)}, "BAD_DURATION", "ttl"),
    ("a ttl of 3,660 days and 1 s", {"ttl": lasting(3660 * DAY + 1)}, "BAD_DURATION", "ttl"),
    ("a ttl of 10^11 s", {"ttl": lasting(10**11)}, "BAD_DURATION", "ttl"),
    ("a lease id of 129 bytes", {"ack_lease_ids": ["l" * 129]}, "BAD_LEASE_ID", "128"),
    ("a key of 129 bytes", {"key": "k" * 129}, "BAD_KEY", "128"),
    ("a key of 130 bytes in 65 characters", {"key": "\xe4" * 65}, "BAD_KEY", "128"),
    ("a unique key of 129 bytes", {"unique_key": "k" * 129}, "BAD_UNIQUE_KEY", "128"),
    ("a unique key for two messages", {"bodies": [b"a", b"b"], "unique_key": "u"}, "BAD_UNIQUE_KEY", "single"),
    ("10,001 lease ids", {"ack_lease_ids": ["l"] * 10_001}, "TOO_MANY_MESSAGES", "10,000"),
]


@pytest.mark.parametrize(("fields", "reason", "named"), [case[1:] for case in ENQ], ids=[f"{case[0]}" for case in ENQ])
def test_a_bad_enq_is_refused(stub: QueueServiceStub, fields: dict[str, Any], reason: str, named: str) -> None:
    with refused(INVALID, reason) as refusal:
        stub.Enq(pb.EnqRequest(**{"bodies": [b"a"]} | fields), timeout=SECONDS)
    assert named in refusal.text


def test_a_stale_lease_in_an_enq_is_refused(stub: QueueServiceStub) -> None:
    with refused(STALE, "LEASE_STALE"):
        stub.Enq(pb.EnqRequest(bodies=[b"a"], ack_lease_ids=["never seen"]), timeout=SECONDS)


def test_an_enq_at_every_limit_is_taken(stub: QueueServiceStub) -> None:
    headers = {f"{each:02}": "v" * 126 for each in range(64)}
    assert sum(len(key) + len(value) for key, value in headers.items()) == 8192
    request = pb.EnqRequest(
        queue="q" * 128,
        bodies=[b"x" * (MESSAGE_LIMIT - 8192)],
        request_id="\xe4" * 64,
        priority=255,
        ttl=lasting(3660 * DAY),
        headers=headers,
    )
    receipt = stub.Enq(request, timeout=SECONDS)
    assert (receipt.first_id, receipt.count, receipt.duplicate) == (1, 1, False)
    (message,) = drain(stub.Deq(pb.DeqRequest(queue="q" * 128, no_ack=True, wait=lasting(0)), timeout=SECONDS))
    assert (message.headers, message.priority, len(message.body)) == (headers, 255, MESSAGE_LIMIT - 8192)


def test_the_longest_delay_is_taken(stub: QueueServiceStub, client: SQClient) -> None:
    stub.Enq(pb.EnqRequest(bodies=[b"a"], delay=lasting(366 * DAY), ttl=lasting(0, 1_000_000)), timeout=SECONDS)
    until(lambda: client.queues(), {})


def test_100_000_bodies_are_taken_at_once(stub: QueueServiceStub, client: SQClient) -> None:
    assert stub.Enq(pb.EnqRequest(bodies=[b""] * 100_000), timeout=SECONDS).count == 100_000
    assert client.purge() == 100_000


# -- sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"key": "value"}], ids=["without headers", "with headers"])
@pytest.mark.parametrize("beyond", [-1, 0])
def test_a_message_up_to_the_limit_can_be_enqueued_looked_at_and_delivered(
    stub: QueueServiceStub, beyond: int, headers: dict[str, str]
) -> None:
    size = MESSAGE_LIMIT + beyond - sum(len(key) + len(value) for key, value in headers.items())
    stub.Enq(pb.EnqRequest(bodies=[b"x" * size], headers=headers), timeout=SECONDS)
    (peeked,) = drain(stub.Peek(pb.PeekRequest(), timeout=SECONDS))
    assert len(peeked.message.body) == size
    (message,) = drain(stub.Deq(pb.DeqRequest(no_ack=True, wait=lasting(0)), timeout=SECONDS))
    assert len(message.body) == size


@pytest.mark.parametrize("headers", [{}, {"key": "value"}], ids=["without headers", "with headers"])
def test_a_message_of_one_byte_more_is_refused(stub: QueueServiceStub, headers: dict[str, str]) -> None:
    size = MESSAGE_LIMIT + 1 - sum(len(key) + len(value) for key, value in headers.items())
    with refused(INVALID, "MESSAGE_TOO_LARGE") as refusal:
        stub.Enq(pb.EnqRequest(bodies=[b"ok", b"x" * size], headers=headers), timeout=SECONDS)
    assert f"{MESSAGE_LIMIT:,}" in refusal.text


@pytest.mark.parametrize("mib", [5, 100])
def test_a_request_above_its_limit_is_refused_unread(stub: QueueServiceStub, client: SQClient, mib: int) -> None:
    # gRPC itself refuses it, before our code sees it: without a reason of ours, which our own client adds.
    with refused(EXHAUSTED, "") as refusal:
        stub.Enq(pb.EnqRequest(bodies=[b"x" * (mib * MIB)]), timeout=SECONDS)
    assert str(REQUEST_LIMIT) in refusal.text
    assert client.cnt() == 0, "the server is well"


def test_many_messages_that_are_too_much_together_are_refused(stub: QueueServiceStub) -> None:
    with refused(EXHAUSTED, ""):
        stub.Enq(pb.EnqRequest(bodies=[b"x" * MIB] * 5), timeout=SECONDS)


@pytest.mark.parametrize("buff_size", [64 << 10, 16 << 20])
def test_the_limits_follow_buff_size(buff_size: int) -> None:
    largest = buff_size - MESSAGE_ROOM
    with SQServer(port=0, buff_size=buff_size) as server, SQClient(port=server.port, timeout=SECONDS) as client:
        client.enq(b"x" * largest)
        message = client.deq(timeout=SECONDS)
        assert message is not None
        assert len(message) == largest
        with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            with refused(INVALID, "MESSAGE_TOO_LARGE"):
                QueueServiceStub(channel).Enq(pb.EnqRequest(bodies=[b"x" * (largest + 1)]), timeout=SECONDS)
            with refused(EXHAUSTED, ""):
                QueueServiceStub(channel).Enq(pb.EnqRequest(bodies=[b"x" * (buff_size + 1)]), timeout=SECONDS)


# -- consuming --------------------------------------------------------------------------------------------------------

DEQ: list[tuple[str, dict[str, Any], str, str]] = [
    ("prefetch -1", {"prefetch": -1}, "BAD_LIMIT", "10000"),
    ("prefetch 10,001", {"prefetch": 10_001}, "BAD_LIMIT", "10000"),
    ("the most prefetch", {"prefetch": 2**31 - 1}, "BAD_LIMIT", "prefetch"),
    ("prefetch_bytes -1", {"prefetch_bytes": -1}, "BAD_LIMIT", "prefetch_bytes"),
    ("prefetch_bytes 1 GiB and 1", {"prefetch_bytes": (1 << 30) + 1}, "BAD_LIMIT", str(1 << 30)),
    ("concurrency 10,001", {"concurrency": 10_001}, "BAD_LIMIT", "concurrency"),
    ("the most concurrency", {"concurrency": 2**32 - 1}, "BAD_LIMIT", "10000"),
    ("max_messages -1", {"max_messages": -1}, "BAD_LIMIT", "max_messages"),
    ("the least max_messages", {"max_messages": -(2**63)}, "BAD_LIMIT", "max_messages"),
    ("a wait of -1 s", {"wait": lasting(-1)}, "BAD_DURATION", "wait"),
    ("a wait of -1 ns", {"wait": lasting(0, -1)}, "BAD_DURATION", "wait"),
    ("a wait of 10^11 s", {"wait": lasting(10**11)}, "BAD_DURATION", "wait"),
    ("an ack_timeout of -1 s", {"ack_timeout": lasting(-1)}, "BAD_DURATION", "ack_timeout"),
    ("an ack_timeout of 1 ns", {"ack_timeout": lasting(0, 1)}, "BAD_DURATION", "0.01"),
    ("an ack_timeout of just under 10 ms", {"ack_timeout": lasting(0, 9_999_999)}, "BAD_DURATION", "ack_timeout"),
    ("an ack_timeout of 2e9 ns", {"ack_timeout": lasting(0, 2_000_000_000)}, "BAD_DURATION", "nanos"),
    ("a wait of 1 s and 1e9 ns", {"wait": lasting(1, 1_000_000_000)}, "BAD_DURATION", "wait: nanos"),
    ("a wait of 1 s less 1 ns", {"wait": lasting(1, -1)}, "BAD_DURATION", "wait: nanos"),
    ("an ack_timeout of 7 days and 1 s", {"ack_timeout": lasting(7 * DAY + 1)}, "BAD_DURATION", "ack_timeout"),
    ("an ack_timeout of 10^11 s", {"ack_timeout": lasting(10**11)}, "BAD_DURATION", "ack_timeout"),
    ("a consumer of 129 bytes", {"consumer": "c" * 129}, "BAD_CONSUMER", "128"),
    ("a consumer of 130 bytes in 65 characters", {"consumer": "\xe4" * 65}, "BAD_CONSUMER", "128"),
]


@pytest.mark.parametrize(("fields", "reason", "named"), [case[1:] for case in DEQ], ids=[case[0] for case in DEQ])
def test_a_bad_deq_is_refused(stub: QueueServiceStub, fields: dict[str, Any], reason: str, named: str) -> None:
    with refused(INVALID, reason) as refusal:
        drain(stub.Deq(pb.DeqRequest(**fields), timeout=SECONDS))
    assert named in refusal.text


def test_a_bad_deq_takes_nothing(stub: QueueServiceStub, client: SQClient) -> None:
    client.enq("a")
    with refused(INVALID, "BAD_LIMIT"):
        drain(stub.Deq(pb.DeqRequest(prefetch=-1, no_ack=True, wait=lasting(0)), timeout=SECONDS))
    assert [message.attempt for message in client.peek_messages()] == [0]
    assert client.purge() == 1


def test_a_deq_at_every_limit_is_taken(stub: QueueServiceStub) -> None:
    request = pb.DeqRequest(
        prefetch=10_000,
        prefetch_bytes=1 << 30,
        max_messages=2**63 - 1,
        wait=lasting(0, 1),
        ack_timeout=lasting(7 * DAY),
        consumer="\xe4" * 64,
    )
    assert drain(stub.Deq(request, timeout=SECONDS)) == []


# -- settling ---------------------------------------------------------------------------------------------------------

ACK: list[tuple[str, dict[str, Any], str, str]] = [
    ("no lease", {"lease_ids": []}, "EMPTY_BATCH", "lease_ids"),
    ("100,001 leases", {"lease_ids": ["l"] * 100_001}, "TOO_MANY_MESSAGES", "100,000"),
    ("a lease of 129 bytes", {"lease_ids": ["l" * 129]}, "BAD_LEASE_ID", "128"),
    ("a lease of 1 MiB", {"lease_ids": ["l" * MIB]}, "BAD_LEASE_ID", "128"),
    ("outcome 5", {"outcome": 5}, "BAD_OUTCOME", "5"),
    ("outcome -1", {"outcome": -1}, "BAD_OUTCOME", "-1"),
    ("EXTEND without a delay", {"outcome": pb.OUTCOME_EXTEND}, "BAD_DURATION", "delay"),
    ("EXTEND by 0", {"outcome": pb.OUTCOME_EXTEND, "delay": lasting(0)}, "BAD_DURATION", "delay"),
    ("EXTEND by -1 s", {"outcome": pb.OUTCOME_EXTEND, "delay": lasting(-1)}, "BAD_DURATION", "delay"),
    (
        "EXTEND by 7 days and 1 s",
        {"outcome": pb.OUTCOME_EXTEND, "delay": lasting(7 * DAY + 1)},
        "BAD_DURATION",
        "delay",
    ),
    ("ACK with a delay", {"outcome": pb.OUTCOME_ACK, "delay": lasting(1)}, "BAD_DURATION", "delay"),
    ("ACK by default with a delay", {"delay": lasting(1)}, "BAD_DURATION", "delay"),
    ("DEAD_LETTER with a delay", {"outcome": pb.OUTCOME_DEAD_LETTER, "delay": lasting(1)}, "BAD_DURATION", "delay"),
    ("REQUEUE after -1 ns", {"outcome": pb.OUTCOME_REQUEUE, "delay": lasting(0, -1)}, "BAD_DURATION", "delay"),
    (
        "REQUEUE after 2e9 ns",
        {"outcome": pb.OUTCOME_REQUEUE, "delay": lasting(0, 2_000_000_000)},
        "BAD_DURATION",
        "delay: nanos",
    ),
    ("REQUEUE after 10^11 s", {"outcome": pb.OUTCOME_REQUEUE, "delay": lasting(10**11)}, "BAD_DURATION", "delay"),
    ("ACK with a reason", {"reason": "r"}, "BAD_REASON", "reason"),
    ("REQUEUE with a reason", {"outcome": pb.OUTCOME_REQUEUE, "reason": "r"}, "BAD_REASON", "reason"),
    ("a reason of 1,025 bytes", {"outcome": pb.OUTCOME_DEAD_LETTER, "reason": "r" * 1025}, "BAD_REASON", "1,024"),
    ("ACK of what is untouched", {"untouched": True}, "BAD_UNTOUCHED", "untouched"),
    (
        "DEAD_LETTER of what is untouched",
        {"outcome": pb.OUTCOME_DEAD_LETTER, "untouched": True},
        "BAD_UNTOUCHED",
        "untouched",
    ),
    ("take_next with REQUEUE", {"outcome": pb.OUTCOME_REQUEUE, "take_next": True}, "BAD_TAKE_NEXT", "take_next"),
    (
        "take_next with EXTEND",
        {"outcome": pb.OUTCOME_EXTEND, "delay": lasting(1), "take_next": True},
        "BAD_TAKE_NEXT",
        "take_next",
    ),
    ("take_next with two leases", {"lease_ids": ["second"], "take_next": True}, "BAD_TAKE_NEXT", "take_next"),
    ("take_next with close_stream", {"close_stream": True, "take_next": True}, "BAD_TAKE_NEXT", "take_next"),
    ("take_next with a reason", {"reason": "r", "take_next": True}, "BAD_REASON", "reason"),
]


@pytest.mark.parametrize(("fields", "reason", "named"), [case[1:] for case in ACK], ids=[case[0] for case in ACK])
def test_a_bad_ack_is_refused_and_settles_nothing(
    stub: QueueServiceStub, client: SQClient, fields: dict[str, Any], reason: str, named: str
) -> None:
    client.enq("a")
    message = client.deq(timeout=SECONDS)
    assert message is not None
    lease_ids = fields.get("lease_ids", [])
    request = pb.AckRequest(**fields | {"lease_ids": [message.lease_id, *lease_ids] if lease_ids else lease_ids})
    if "lease_ids" not in fields:
        request.lease_ids.append(message.lease_id)
    with refused(INVALID, reason) as refusal:
        stub.Ack(request, timeout=SECONDS)
    assert named in refusal.text
    assert client.counts().leased == 1
    assert message.ack() is True
    client.disconnect()


@pytest.mark.parametrize("lease_id", ["", "garbage", "\0", "\xe4" * 64, "../..", "' OR 1=1 --", "0-0"])
@pytest.mark.parametrize(
    "outcome", [pb.OUTCOME_UNSPECIFIED, pb.OUTCOME_ACK, pb.OUTCOME_REQUEUE, pb.OUTCOME_DEAD_LETTER]
)
def test_an_ack_of_garbage_is_stale(stub: QueueServiceStub, lease_id: str, outcome: pb.Outcome.ValueType) -> None:
    answer = stub.Ack(pb.AckRequest(lease_ids=[lease_id], outcome=outcome), timeout=SECONDS)
    assert list(answer.stale_lease_ids) == [lease_id]


# -- looking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"limit": -1}, "BAD_LIMIT"),
        ({"limit": -(2**63)}, "BAD_LIMIT"),
        ({"state": 5}, "BAD_STATE"),
        ({"state": -1}, "BAD_STATE"),
        ({"after_priority": 256}, "BAD_PRIORITY"),
    ],
    ids=repr,
)
def test_a_bad_peek_is_refused(stub: QueueServiceStub, fields: dict[str, Any], reason: str) -> None:
    with refused(INVALID, reason) as refusal:
        drain(stub.Peek(pb.PeekRequest(**fields), timeout=SECONDS))
    assert next(iter(fields)) in refusal.text


def test_a_peek_at_every_limit_is_taken(stub: QueueServiceStub) -> None:
    assert drain(stub.Peek(pb.PeekRequest(limit=2**63 - 1, after_id=2**64 - 1), timeout=SECONDS)) == []


def test_a_cnt_of_too_many_queues_is_refused(stub: QueueServiceStub) -> None:
    with refused(INVALID, "TOO_MANY_QUEUES"):
        stub.Cnt(pb.CntRequest(queues=["q"] * 10_001), timeout=SECONDS)
    assert len(stub.Cnt(pb.CntRequest(queues=["q"] * 10_000), timeout=SECONDS).queues) == 10_000


# -- what is not a request at all --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["Enq", "Deq", "Ack", "Cnt", "Peek"])
def test_bytes_that_are_no_request_harm_nothing(channel: grpc.Channel, client: SQClient, method: str) -> None:
    call: Any = channel.unary_stream(f"/stiqueue.v1.QueueService/{method}")
    with refused(grpc.StatusCode.UNKNOWN, ""):  # the word of grpc.aio, before our code sees it
        list(call(b"\xff\xff\xff\xff\xff", timeout=SECONDS))
    assert client.queues() == {}


def test_an_unknown_method_is_unimplemented(channel: grpc.Channel) -> None:
    call: Any = channel.unary_unary("/stiqueue.v1.QueueService/Purge")
    with refused(UNIMPLEMENTED, ""):
        call(b"", timeout=SECONDS)


def test_unknown_fields_are_ignored(stub: QueueServiceStub, client: SQClient) -> None:
    unknown = b"\xfa\x3f\x03new"  # field 1023, as a later version may have it
    request = pb.EnqRequest.FromString(pb.EnqRequest(bodies=[b"a"]).SerializeToString() + unknown)
    stub.Enq(request, timeout=SECONDS)
    assert [message.decode() for message in client.peek_messages(state=State.ALL)] == ["a"]
    assert client.purge() == 1
