"""Every public method of the three clients with wrong values: `InvalidRequest` at once, saying what to write."""

from __future__ import annotations

import asyncio
import datetime
import inspect
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stiqueue import TLS, AsyncSQClient, InvalidRequest, LocalSQClient, SQClient, SQServer, Worker
from stiqueue.arguments import shown
from stiqueue.health import is_serving

KINDS = ["SQClient", "AsyncSQClient", "LocalSQClient"]
QUEUE = "wrong"


class Subject:
    """A client of any kind, its methods called by name."""

    def __init__(self, client: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.client = client
        self._loop = loop

    def call(self, method: Callable[..., Any] | str, *args: Any, **options: Any) -> Any:
        """Call a method; await it where that is needed."""
        function = getattr(self.client, method) if isinstance(method, str) else method
        result = function(*args, **options)
        return self._loop.run_until_complete(result) if inspect.isawaitable(result) else result


@pytest.fixture(scope="module")
def server() -> Iterator[SQServer]:
    """One server for all: bad input changes nothing."""
    with SQServer(port=0) as server:
        yield server


@pytest.fixture(scope="module", params=KINDS)
def subject(request: pytest.FixtureRequest, server: SQServer) -> Iterator[Subject]:
    loop = asyncio.new_event_loop()
    client: Any
    if request.param == "LocalSQClient":
        client = LocalSQClient(queue=QUEUE, consumer="me")
    elif request.param == "SQClient":
        client = SQClient(port=server.port, queue=QUEUE)
    else:
        client = AsyncSQClient(port=server.port, queue=QUEUE)
    subject = Subject(client, loop)
    yield subject
    subject.call("close")
    loop.close()


@pytest.fixture(autouse=True)
def _nothing_stays_open(subject: Subject) -> Iterator[None]:
    """Let each test open what it needs anew."""
    yield
    subject.call("disconnect")


def refusal(call: Callable[..., Any], *args: Any, **options: Any) -> str:
    with pytest.raises(InvalidRequest) as refused:
        call(*args, **options)
    return str(refused.value)


# (method, arguments, what the error says)
Case = tuple[str, tuple[Any, ...], dict[str, Any], str]
CASES: list[Case] = [
    ("enq", (None,), {}, 'msg: .*not NoneType; write "" if it is to be empty'),
    ("enq", ({"n": 1},), {}, r"msg: .*json\.dumps\(msg\)"),
    ("enq", (5,), {}, r"str\(msg\)"),
    ("enq", ("a",), {"headers": "n=1"}, r"headers: 'n=1' is of type str; write a dict such as \{\"n\": \"1\"\}"),
    ("enq", ("a",), {"headers": {"n": 1}}, r"headers\['n'\]: 1 is of type int; write text, as in str\(value\)"),
    ("enq", ("a",), {"headers": {"n": None}}, r"headers\['n'\]: None"),
    ("enq", ("a",), {"headers": {"n": b"1"}}, r"headers\['n'\]: b'1' is of type bytes"),
    ("enq", ("a",), {"headers": {1: "n"}}, "headers: 1 is of type int; write keys that are text"),
    ("enq", ("a",), {"headers": [("n", "1")]}, "headers: .* is of type list; write a dict"),
    ("enq", ("a",), {"headers": []}, "headers: .* is of type list; write a dict"),
    ("enq", ("a",), {"headers": ""}, "headers: '' is of type str"),
    ("enq", ("a",), {"request_id": uuid.UUID(int=7)}, r"request_id: UUID.*write str\(request_id\)"),
    ("enq", ("a",), {"request_id": 0}, r"request_id: 0 is of type int; write str\(request_id\)"),
    ("enq", ("a",), {"request_id": b"id"}, r"request_id: .*write request_id\.decode\(\)"),
    ("enq", ("a",), {"priority": "5"}, "priority: '5' is not a whole number; write 0 to 255"),
    ("enq", ("a",), {"priority": 1.5}, "priority: 1.5 is not a whole number"),
    ("enq", ("a",), {"priority": 0.0}, "priority: 0.0 is not a whole number"),
    ("enq", ("a",), {"priority": None}, "priority: None"),
    ("enq", ("a",), {"priority": True}, "priority: True"),
    ("enq", ("a",), {"priority": False}, "priority: False"),
    ("enq", ("a",), {"priority": 10**6000}, "priority: a value of type int is not within 0 to 255"),
    ("enq", ("a",), {"queue": 5}, 'queue: 5 is of type int; write a name such as "jobs"'),
    ("enq", ("a",), {"queue": b""}, "queue: b'' is of type bytes"),
    ("enq", ("a",), {"queue": ["jobs"]}, "queue: .* is of type list"),
    ("enq", ("a",), {"queue": 0}, "queue: 0 is of type int"),
    ("enq", ("a",), {"queue": "a b"}, "queue: 'a b' is not 1 to 128 of"),
    ("enq_many", ("hello",), {}, r"msgs: one message of type str; write enq\(msg\), or enq_many\(\[msg\]\)"),
    ("enq_many", (b"hello",), {}, "msgs: one message of type bytes"),
    ("enq_many", (bytearray(b"hello"),), {}, "msgs: one message of type bytearray"),
    ("enq_many", (5,), {}, "msgs: 5 is of type int; write a list of messages"),
    ("enq_many", (None,), {}, "msgs: None"),
    ("enq_many", ([1, 2],), {}, "msg: a message is str or bytes, not int"),
    ("enq_many", ([],), {"priority": 256}, "priority: 256 is not within 0 to 255"),
    ("enq_many", ([],), {"headers": "n=1"}, "headers: 'n=1'"),
    ("enq_soon", (None,), {}, 'msg: .*not NoneType; write "" if it is to be empty'),
    ("enq_soon", ("a",), {"headers": "n=1"}, r"headers: 'n=1' is of type str"),
    ("enq_soon", ("a",), {"headers": {"n": 1}}, r"headers\['n'\]: 1 is of type int"),
    ("enq_soon", ("a",), {"priority": 256}, "priority: 256 is not within 0 to 255"),
    ("enq_soon", ("a",), {"queue": 5}, "queue: 5"),
    ("enq_soon", ("a",), {"request_id": 0}, "request_id: 0"),
    ("flush", ("5",), {}, "timeout: '5'"),
    ("enq_and_ack", ("a", "b"), {}, r"message: 'b' is of type str; write what deq\(\) returned"),
    ("deq", (), {"queue": 5}, "queue: 5"),
    ("ack", ("a",), {}, r"messages: 'a' is of type str; write what deq\(\) returned"),
    ("ack", ([],), {}, r"messages: .*one by one: ack\(first, second\)"),
    ("ack", (None,), {}, "messages: None"),
    ("consume", ("5",), {}, "prefetch: '5' is not a whole number; write 1 to 10000"),
    ("consume", (0,), {}, "prefetch: 0 is not within 1 to 10000"),
    ("consume", (True,), {}, "prefetch: True"),
    ("consume", (), {"queue": 5}, "queue: 5"),
    ("consume", (), {"resume": "no"}, "resume: .no. is neither True nor False"),
    ("cnt", (), {"queue": 5}, "queue: 5"),
    ("counts", (), {"queue": "a/b"}, "queue: 'a/b'"),
    ("peek", ("5",), {}, "n: '5' is not a whole number"),
    ("peek", (True,), {}, "n: True"),
    ("peek", (), {"sep": b","}, r"sep: b',' is of type bytes; write sep\.decode\(\)"),
    ("peek", (), {"sep": None}, "sep: None"),
    ("peek", (), {"sep": "\ud800"}, "sep: .*surrogates not allowed"),
    ("peek", (), {"queue": 5}, "queue: 5"),
    ("peek_messages", (1.5,), {}, "n: 1.5 is not a whole number"),
    ("peek_messages", (), {"state": "READY"}, r"state: 'READY' is of type str; write State\.READY"),
    ("peek_messages", (), {"state": 1}, r"state: 1 is of type int; write State\.READY"),
    ("peek_messages", (), {"after_id": "1"}, "after_id: '1' is not a whole number"),
    ("peek_messages", (), {"after_id": -1}, "after_id: -1"),
    ("peek_messages", (), {"after_priority": 256}, "after_priority: 256"),
    ("peek_messages", (), {"after_priority": "high"}, "after_priority: 'high' is not a whole number"),
    ("purge", (), {"queue": 5}, "queue: 5"),
    ("redrive", ("5",), {}, "n: '5' is not a whole number"),
    ("redrive", (), {"queue": 5}, "queue: 5"),
    ("redrive", (), {"ids": 5}, "ids: 5 is of type int; write a list of ids"),
    ("redrive", (), {"ids": "12"}, "ids: '1' is not a whole number"),
    ("take", ("5",), {}, "ids: '5' is not a whole number"),
    ("take", (1,), {"queue": 5}, "queue: 5"),
    ("cancel", (0,), {}, "ids: 0 is not within 1 to"),
    ("cancel", ([1],), {}, r"ids: \[1\] is not a whole number"),
    ("cancel", (1,), {"queue": 5}, "queue: 5"),
    ("reschedule", (1, "5"), {}, "delay: '5' is not a number of seconds; write delay=5, without quotes"),
    ("reschedule", (1, -1), {}, "delay: -1 s is not within 0 to"),
    ("reschedule", (None, 5), {}, "ids: None"),
    ("replace", (1, 5), {}, r"str\(msg\)"),
    ("replace", (1, "a"), {"priority": 256}, "priority: 256 is not within 0 to 255"),
    ("replace", (1, "a"), {"headers": "n=1"}, "headers: 'n=1'"),
    ("replace", (1, "a"), {"ttl": 0}, "ttl: 0"),
    ("replace", (1, "a"), {"timeout": "5"}, "timeout: '5'"),
    ("pause", ("5",), {}, "resume_after: '5' is not a number of seconds"),
    ("pause", (), {"queue": 5}, "queue: 5"),
    ("pause", (), {"queue": "a b*"}, r"queue: 'a b\*' is not 1 to 128 of"),
    ("resume", (), {"queue": 5}, "queue: 5"),
    ("settings", (), {"queue": 5}, "queue: 5"),
    ("all_settings", (), {"timeout": "5"}, "timeout: '5'"),
    ("configure", (), {"max_leased": "5"}, "max_leased: '5' is not a whole number"),
    ("configure", (), {"paused": "no"}, "paused: 'no' is of type str; write True or False"),
    ("configure", (), {"ttl": "5"}, "ttl: '5' is not a number of seconds; write ttl=5, without quotes"),
    ("configure", (), {"reset": 5}, "reset: 5 is of type int; write a list of names"),
    ("configure", (), {"reset": "max_lease"}, "reset: 'max_lease' is not a setting; they are paused"),
    ("call", (5,), {}, r"str\(msg\)"),
    ("backoff_of", ("a",), {}, "message: 'a'"),
]


@pytest.mark.parametrize(("method", "args", "options", "words"), CASES, ids=shown)
def test_a_wrong_argument_is_refused_at_once_in_words_that_help(
    subject: Subject, method: str, args: tuple[Any, ...], options: dict[str, Any], words: str
) -> None:
    assert re.search(words, refusal(subject.call, method, *args, **options))
    assert subject.call("queues") == {}


def test_the_table_has_every_method() -> None:
    public = {name for name in dir(SQClient) if not name.startswith("_") and callable(getattr(SQClient, name))}
    assert public - {case[0] for case in CASES} == {"close", "disconnect", "queues"}


# -- durations --------------------------------------------------------------------------------------------------------

# (method, arguments before, the argument, whether None and 0 are allowed)
DURATIONS: list[tuple[str, tuple[Any, ...], str, bool, bool]] = [
    ("enq", ("a",), "delay", False, True),
    ("enq", ("a",), "ttl", True, False),
    ("enq", ("a",), "timeout", True, True),
    ("enq_many", (["a"],), "delay", False, True),
    ("enq_many", (["a"],), "ttl", True, False),
    ("enq_many", (["a"],), "timeout", True, True),
    ("enq_soon", ("a",), "delay", False, True),
    ("enq_soon", ("a",), "ttl", True, False),
    ("enq_soon", ("a",), "timeout", True, True),
    ("flush", (), "timeout", True, True),
    ("deq", (), "timeout", True, True),
    ("consume", (), "timeout", True, True),
    ("cnt", (), "timeout", True, True),
    ("counts", (), "timeout", True, True),
    ("queues", (), "timeout", True, True),
    ("peek", (), "timeout", True, True),
    ("peek_messages", (), "timeout", True, True),
    ("requeue", (), "delay", True, True),
    ("extend", (), "seconds", False, False),
    ("ack_and_enq", ("a",), "delay", False, True),
    ("ack_and_enq", ("a",), "ttl", True, False),
    ("ack_and_enq", ("a",), "timeout", True, True),
    ("enq_and_ack", ("a",), "delay", False, True),
    ("enq_and_ack", ("a",), "timeout", True, True),
]
OF_MESSAGES = {"requeue", "extend", "ack_and_enq"}
NO_DURATIONS: list[Any] = [
    float("inf"),
    float("-inf"),
    float("nan"),
    -1,
    -1e-9,
    1e10,
    10**6000,
    "5",
    "soon",
    b"5",
    True,
    False,
    [],
    1j,
    datetime.timedelta(seconds=5),
]


def bad_durations(none: bool, zero: bool) -> list[Any]:
    return [*NO_DURATIONS, *([] if none else [None]), *([] if zero else [0, 0.0])]


@pytest.mark.parametrize(("method", "before", "name", "none", "zero"), DURATIONS, ids=lambda value: str(value))
def test_a_duration_that_is_none_is_refused_by_name_and_changes_nothing(
    subject: Subject, method: str, before: tuple[Any, ...], name: str, none: bool, zero: bool
) -> None:
    message = None
    if method in OF_MESSAGES or method == "enq_and_ack":
        subject.call("enq", "held")
        message = subject.call("deq", timeout=0)
    try:
        called = getattr(message, method) if method in OF_MESSAGES else method
        args = (*before, message) if method == "enq_and_ack" else before
        for value in bad_durations(none, zero):
            told = refusal(subject.call, called, *args, **{name: value})
            assert told.startswith(name), (value, told)
            assert len(told) < 300
        if message is not None:
            counts = subject.call("counts")
            assert (counts.ready, counts.leased, counts.delayed) == (0, 1, 0)
            assert subject.call(message.ack) is True
    finally:
        subject.call("disconnect")
    assert subject.call("queues") == {}


def test_what_is_meant_is_said(subject: Subject) -> None:
    assert "write delay=5, without quotes" in refusal(subject.call, "enq", "a", delay="5")
    assert "write delay=5 or delay=0.5" in refusal(subject.call, "enq", "a", delay="soon")
    assert "write delay.total_seconds()" in refusal(subject.call, "enq", "a", delay=datetime.timedelta(1))
    assert "31622400" in refusal(subject.call, "deq", 1e10).replace("3.16224e+07", "31622400")


@pytest.mark.parametrize("value", [0, 0.0, 1, 1.5, 366 * 86_400])
def test_durations_in_their_range_are_taken(value: float) -> None:
    longest = 366 * 86_400
    with SQServer(port=0) as server, SQClient(port=server.port, timeout=longest) as remote, LocalSQClient() as local:
        for client in remote, local:
            client.enq("a", delay=value, timeout=longest)
            client.enq("b", ttl=value or None)
            message = client.deq(timeout=longest)
            assert message in (b"a", b"b")
            assert message.extend(7 * 86_400)
            assert message.requeue(value)
            client.peek_messages(timeout=longest)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    value=st.one_of(
        st.text(), st.binary(), st.booleans(), st.lists(st.integers()), st.dictionaries(st.text(), st.none()),
        st.floats(max_value=-1e-300), st.floats(min_value=4e8), st.integers(max_value=-1), st.complex_numbers(),
    ),
    name=st.sampled_from(["delay", "ttl", "timeout"]),
)  # fmt: skip
def test_nothing_else_is_taken_for_a_duration(value: Any, name: str) -> None:
    with LocalSQClient() as client:
        assert refusal(client.enq, "a", **{name: value if value is not False else -1}).startswith(f"{name}: ")
        assert client.queues() == {}


# -- messages ---------------------------------------------------------------------------------------------------------


def test_a_wrong_reason_or_successor_leaves_the_message_leased(subject: Subject) -> None:
    subject.client.queue = "settling"
    subject.call("enq", "held")
    message = subject.call("deq", timeout=0)
    assert "write str(reason)" in refusal(subject.call, message.dead_letter, ValueError("why"))
    assert "reason: None" in refusal(subject.call, message.dead_letter, None)
    assert "json.dumps(msg)" in refusal(subject.call, message.ack_and_enq, {"n": 1})
    assert "headers" in refusal(subject.call, message.ack_and_enq, "a", headers="n=1")
    with pytest.raises(TypeError, match=r"ack_and_enq has no argument dealy; did you mean delay?"):
        subject.call(message.ack_and_enq, "a", dealy=1)
    assert subject.call("counts").leased == 1
    assert subject.call(message.ack) is True
    assert subject.call("deq", timeout=0) is None
    subject.call("disconnect")


def test_after_a_wrong_settlement_in_a_loop_the_message_comes_again(server: SQServer) -> None:
    with SQClient(port=server.port, queue="loop") as client:
        client.enq("a")
        attempts = []
        for message in client.consume(timeout=0):
            attempts.append(message.attempt)
            if message.attempt == 1:
                assert "delay" in refusal(message.requeue, delay=-1)
        assert attempts == [1, 2], "nobody wanted it to be acked"
        assert "loop" not in client.queues()


def test_a_message_that_is_not_leased_cannot_be_settled(subject: Subject) -> None:
    subject.client.queue = "looking"
    subject.call("enq", "a")
    (message,) = subject.call("peek_messages")
    assert "not leased" in refusal(subject.call, message.ack)
    subject.call("purge")


def test_a_forgotten_message_still_checks_what_it_is_asked(server: SQServer) -> None:
    with SQClient(port=server.port, queue="forgotten", ack_required=False) as client:
        client.enq("a")
        message = client.deq()
        assert "delay" in refusal(message.requeue, delay="5")
        assert "reason" in refusal(message.dead_letter, ValueError("why"))


# -- making a client --------------------------------------------------------------------------------------------------

OPTIONS: list[tuple[str, Any, str]] = [
    *[("timeout", value, "timeout: ") for value in [*NO_DURATIONS, None]],
    *[("ack_timeout", value, "ack_timeout: ") for value in NO_DURATIONS],
    *[("retry_delay", value, "retry_delay: ") for value in [*NO_DURATIONS, None]],
    ("queue", 5, "queue: 5"),
    ("queue", None, "queue: None"),
    ("consumer", 5, r"consumer: 5 is of type int; write str\(consumer\)"),
    ("consumer", None, "consumer: None"),
    ("consumer", "c" * 129, "consumer: 129 bytes"),
    ("ack_required", "false", "ack_required: 'false' is neither True nor False"),
    ("auto_ack", None, "auto_ack: None is neither True nor False"),
    *[("window", value, "window: ") for value in ["5", 0, -1, 1.5, None, True, 1_000_001]],
    ("logger", "stiqueue", r"logger: 'stiqueue' is none; write logging\.getLogger"),
]


@pytest.mark.parametrize(("name", "value", "words"), OPTIONS, ids=shown)
def test_a_client_refuses_a_wrong_option_when_it_is_made_and_when_it_is_set(name: str, value: Any, words: str) -> None:
    for kind in (SQClient, AsyncSQClient, LocalSQClient):
        if kind is LocalSQClient and name == "timeout":
            continue
        assert re.match(words, refusal(kind, **{name: value}))
        client: Any = kind()
        before = getattr(client, name)
        assert re.match(words, refusal(setattr, client, name, value))
        assert getattr(client, name) is before
    # A worker without a queue works on the one of its client.
    if name not in ("auto_ack", "ack_required", "logger") and (name, value) != ("queue", None):
        assert re.match(words, refusal(Worker, print, **{"queue": "jobs"} | {name: value}))


REMOTE: list[tuple[dict[str, Any], str]] = [
    ({"host": "localhost:1234"}, 'host: .*write host="localhost", port=1234'),
    ({"host": "[::1]"}, 'host: .*write host="::1"'),
    ({"host": "[::1]:1234"}, 'write host="::1", port=1234'),
    ({"host": ":1234"}, 'write host="localhost", port=1234'),
    ({"host": "http://queue.example.com:1234/"}, 'write host="queue.example.com", port=1234'),
    ({"host": "grpc://queue.example.com"}, 'write host="queue.example.com"'),
    ({"host": "unix:/run/stiqueue.sock"}, "the name or the address alone"),
    ({"host": "::1:zz"}, "the name or the address alone"),
    ({"host": "two words"}, "the name or the address alone"),
    ({"host": "line\n"}, "the name or the address alone"),
    ({"host": "a/b"}, "the name or the address alone"),
    ({"host": ""}, "host: it is empty"),
    ({"host": 5}, "host: 5 is of type int"),
    ({"host": b"localhost"}, "host: b'localhost' is of type bytes"),
    ({"port": "1234"}, "port: '1234' is text; write port=1234, without quotes"),
    ({"port": "http"}, "port: 'http' is not a whole number; write 1 to 65535"),
    ({"port": 0}, "port: 0 is not within 1 to 65535"),
    ({"port": 99_999}, "port: 99999 is not within 1 to 65535"),
    ({"port": -1}, "port: -1"),
    ({"port": True}, "port: True"),
    ({"port": 1234.0}, "port: 1234.0"),
    ({"port": None}, "port: None"),
    ({"buff_size": "1024"}, "buff_size: '1024'"),
    ({"buff_size": 0}, "buff_size: 0"),
    ({"tls": 5}, "tls: 5 is of type int; write True, the path of a PEM file"),
    ({"tls": b"ca.pem"}, "tls: b'ca.pem'"),
    ({"token": "secret\n"}, r"token: it ends with a line break.*write token\.strip\(\)"),
    ({"token": "secret\r\n"}, r"token: it ends with a line break.*write token\.strip\(\)"),
    ({"token": b"secret"}, r"token: it is of type bytes; write a str, as in token\.decode\(\)"),
    ({"token": 5}, "token: it is of type int"),
]


@pytest.mark.parametrize(("options", "words"), REMOTE, ids=shown)
def test_a_client_refuses_an_address_or_a_token_that_is_none(options: dict[str, Any], words: str) -> None:
    for kind in (SQClient, AsyncSQClient):
        told = refusal(kind, **options)
        assert re.search(words, told), told
        assert "secret" not in told


@pytest.mark.parametrize("name", ["ca", "cert", "key", "server_name"])
def test_tls_refuses_what_is_no_path_or_name(name: str) -> None:
    assert re.match(f"tls: {name}: 5 is of type int; write", refusal(TLS, **{name: 5}))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("localhost:1234", 1234), "host: "),
        (("localhost", "1234"), "port: "),
        (("localhost", 99_999), "port: "),
        *[(("localhost", 1234, value), "timeout: ") for value in NO_DURATIONS],
    ],
    ids=shown,
)
def test_a_health_check_refuses_a_wrong_argument(args: tuple[Any, ...], words: str) -> None:
    assert refusal(is_serving, *args).startswith(words)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "fe80::1", "queue.example.com", "b\xfccher.example"])
def test_a_client_takes_names_and_addresses(host: str) -> None:
    assert SQClient(host).host == host


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"data": 5}, "data: 5 is of type int; write the path"),
        ({"engine": "memory"}, "engine: 'memory' is of type str"),
        ({"max_attempts": "3"}, "max_attempts: '3' is not a whole number"),
        ({"max_attempts": -1}, "max_attempts: -1"),
        ({"max_attempts": 1.5}, "max_attempts: 1.5"),
    ],
)
def test_a_local_client_refuses_a_wrong_argument(options: dict[str, Any], words: str) -> None:
    assert re.match(words, refusal(LocalSQClient, **options))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "localhost:1234"}, 'write host="localhost", port=1234'),
        ({"host": "[::]"}, 'write host="::"'),
        ({"host": 5}, "host: 5"),
        ({"port": "1234"}, "port: '1234'"),
        ({"port": 1234.5}, "port: 1234.5 is not a whole number within 0 to 65535"),
        ({"max_attempts": 1.5}, "max_attempts: 1.5 is not a whole number"),
        ({"debug": "no"}, "debug: 'no' is neither True nor False"),
        ({"data": 5}, "data: 5"),
        ({"log": 5}, "log: 5"),
        ({"logger": "stiqueue"}, r"logger: 'stiqueue' is none; write logging\.getLogger"),
        ({"tokens": 5}, "tokens: 5"),
        *[({"ack_timeout": value}, "ack_timeout: ") for value in [*NO_DURATIONS, 0]],
        *[({"grace": value}, "grace: ") for value in NO_DURATIONS],
        *[({"keepalive": value}, "keepalive: ") for value in [*NO_DURATIONS, 0]],
    ],
    ids=shown,
)
def test_a_server_refuses_a_wrong_option(options: dict[str, Any], words: str) -> None:
    told = refusal(SQServer, **options)
    assert re.search(words, told), told
    assert len(told) < 300


@pytest.mark.parametrize("grace", [*NO_DURATIONS, None], ids=shown)
def test_a_server_is_not_stopped_with_a_wrong_grace(server: SQServer, grace: Any) -> None:
    assert refusal(server.stop, grace).startswith("grace: ")


@pytest.mark.parametrize("kind", [SQClient, AsyncSQClient, Worker])
def test_an_argument_that_there_is_not_names_the_class_that_was_used(kind: Any) -> None:
    positional = (print,) if kind is Worker else ()
    with pytest.raises(TypeError, match=f"^{kind.__name__} has no argument hots; did you mean host?"):
        kind(*positional, hots="localhost")

    class Mine(SQClient):
        pass

    with pytest.raises(TypeError, match=r"^Mine has no argument zzz$"):
        Mine(zzz=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^SQServer has no argument prot; did you mean port?"):
        SQServer(prot=1)


@pytest.mark.parametrize("kind", [SQClient, AsyncSQClient, LocalSQClient])
def test_a_wrong_call_names_no_inner_class(kind: Any) -> None:
    client = kind()
    for method in "enq", "enq_many", "deq", "consume", "cnt", "counts", "queues", "peek", "peek_messages", "purge":

        async def call(method: str = method) -> None:
            called = getattr(client, method)(no_such_argument=1)
            await called  # where the arguments are looked at when it is awaited

        with pytest.raises(TypeError) as refused:
            asyncio.run(call())
        assert re.match(rf"(\w*SQClient\.)?{method}\(\) got an unexpected keyword argument", str(refused.value))
