"""Traces of OpenTelemetry that go on through the queue, read from the sdk's own exporter."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState
from support.waiting import run_python

from stiqueue import AsyncSQClient, LocalSQClient, Message, QueueFull, Reject, SQClient, SQServer, Worker, processing
from stiqueue.limits import MAX_HEADERS, MAX_HEADERS_BYTES, MESSAGE_ROOM

SECONDS = 20.0


class Traces:
    """A tracer provider of one test, and the spans that have ended."""

    def __init__(self) -> None:
        self.provider = TracerProvider()
        self._exporter = InMemorySpanExporter()
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("test")

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Traces:
    """As in a program that has set up OpenTelemetry; without the global that can be set only once."""
    traces = Traces()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: traces.provider)
    return traces


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def traceparent(span: ReadableSpan) -> str:
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"


def parents(span: ReadableSpan) -> str:
    """Return the `traceparent` that a span was made of."""
    assert span.parent is not None
    return f"00-{span.parent.trace_id:032x}-{span.parent.span_id:016x}-{span.parent.trace_flags:02x}"


def work(server: SQServer, queue: str, handler: Callable[[Message], object], times: int = 1) -> None:
    """Let a worker handle so many messages."""
    left = iter(range(times - 1))

    def handle(message: Message) -> None:
        try:
            handler(message)
        finally:
            if next(left, None) is None:
                worker.stop()

    worker = Worker(handle, queue, threads=1, port=server.port, retry_delay=0.001)
    thread = threading.Thread(target=worker.run)
    thread.start()
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_one_trace_runs_from_enq_through_the_queue_to_the_worker_and_on(
    traces: Traces, server: SQServer, client: SQClient
) -> None:
    with traces.tracer.start_as_current_span("order"):
        message_id = client.enq("hello", queue="mail")
    work(server, "mail", lambda message: message.ack_and_enq("done", queue="log"))
    order, enq, process, then = map(traces.one, ("order", "enq mail", "process mail", "enq log"))
    assert [parents(span) for span in (enq, process, then)] == [traceparent(span) for span in (order, enq, process)]
    assert len({span.context.trace_id for span in (order, enq, process, then)}) == 1
    assert (enq.kind, process.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    common = {
        "messaging.system": "stiqueue",
        "messaging.destination.name": "mail",
        "messaging.message.id": str(message_id),
        "messaging.message.body.size": 5,
    }
    sent = {"messaging.operation.name": "enq", "messaging.operation.type": "send"}
    worked = {"messaging.operation.name": "process", "messaging.operation.type": "process"}
    assert dict(enq.attributes or {}) == common | sent
    attempt = {"messaging.stiqueue.message.delivery_attempt": 1}
    assert dict(process.attributes or {}) == common | worked | attempt
    assert client.deq(timeout=SECONDS, queue="log").headers == {"traceparent": traceparent(then)}


PRODUCER = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
from stiqueue import SQClient
with trace.get_tracer("shop").start_as_current_span("order") as span, SQClient(port=int(sys.argv[1])) as client:
    client.enq("a", queue="jobs")
    print(f"{span.get_span_context().trace_id:032x}")
"""


def test_one_trace_runs_through_two_processes(traces: Traces, server: SQServer) -> None:
    done = run_python(PRODUCER, server.port)
    assert done.returncode == 0, done.stderr
    work(server, "jobs", lambda message: None)
    assert f"{traces.one('process jobs').context.trace_id:032x}" == done.stdout.strip()


async def enq_async(port: int) -> dict[str, str]:
    async with AsyncSQClient(port=port) as client:
        await client.enq("a")
        message = await client.deq(timeout=SECONDS)
        assert message is not None
        with processing(message):
            await asyncio.sleep(0)
        return message.headers


def enq_blocking(client: Any) -> dict[str, str]:
    with client:
        client.enq("a")
        message = client.deq(timeout=SECONDS)
        with processing(message):
            return dict(message.headers)


CLIENTS: dict[str, Callable[[int], dict[str, str]]] = {
    "SQClient": lambda port: enq_blocking(SQClient(port=port)),
    "LocalSQClient": lambda _: enq_blocking(LocalSQClient()),
    "AsyncSQClient": lambda port: asyncio.run(enq_async(port)),
}


@pytest.mark.parametrize("enq", CLIENTS.values(), ids=CLIENTS)
def test_every_client_carries_the_context(traces: Traces, server: SQServer, enq: Callable[[int], Any]) -> None:
    state = TraceState([("vendor", "1")])
    remote = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1), trace_state=state)
    with trace.use_span(NonRecordingSpan(remote)):
        headers = enq(server.port)
    span, process = traces.one("enq default"), traces.one("process default")
    assert headers == {"traceparent": traceparent(span), "tracestate": "vendor=1"}
    assert span.context.trace_id == process.context.trace_id == 0xABC
    assert parents(process) == traceparent(span)


def test_messages_that_are_sent_together_have_one_span(traces: Traces, client: SQClient) -> None:
    assert client.enq_many((str(number) for number in range(1_500)), headers={"kind": "x"}) == 1_500
    span = traces.one("enq default")
    assert span.attributes is not None
    assert span.attributes["messaging.batch.message_count"] == 1_500
    found = [each.headers for each in client.peek_messages()]
    assert found == [{"kind": "x", "traceparent": traceparent(span)}] * 1_500


def test_a_message_that_is_handed_over_has_a_span_of_its_own(traces: Traces, client: SQClient) -> None:
    for body in "ab":
        client.enq_soon(body, headers={"kind": "x"})
    client.flush()
    spans = traces.named("enq default")
    found = [each.headers for each in client.peek_messages()]
    assert found == [{"kind": "x", "traceparent": traceparent(span)} for span in spans]


def test_headers_of_an_earlier_message_give_way(traces: Traces, client: SQClient) -> None:
    old = {"traceparent": f"00-{1:032x}-{1:016x}-01", "tracestate": "old=1", "kind": "x"}
    client.enq("a", headers=old)
    assert client.peek_messages()[0].headers == {"kind": "x", "traceparent": traceparent(traces.one("enq default"))}


FULL = {
    "number": {f"header-{number}": "" for number in range(MAX_HEADERS)},
    "bytes": {"long": "x" * (MAX_HEADERS_BYTES - len("long"))},
}


@pytest.mark.parametrize("headers", FULL.values(), ids=FULL)
def test_a_message_whose_headers_are_full_goes_through_untraced(
    traces: Traces, client: SQClient, headers: dict[str, str]
) -> None:
    client.enq("a", headers=headers)
    client.enq_many(list("b"), headers=headers)
    assert [each.headers for each in client.peek_messages()] == [headers] * 2
    assert len(traces.named("enq default")) == 2


def test_the_largest_message_goes_through(traces: Traces, client: SQClient) -> None:
    client.enq(bytes((4 << 20) - MESSAGE_ROOM))
    message = client.deq(timeout=SECONDS)
    assert message is not None
    assert message.headers == {"traceparent": traceparent(traces.one("enq default"))}


def test_a_span_tells_of_an_error(traces: Traces, stack: ExitStack) -> None:
    server = stack.enter_context(SQServer(port=0, max_messages=1))
    client = stack.enter_context(SQClient(port=server.port))
    client.enq("a")
    with pytest.raises(QueueFull):
        client.enq("b")
    good, bad = traces.named("enq default")
    assert good.status.status_code is StatusCode.UNSET
    assert (bad.status.status_code, (bad.attributes or {})["error.type"]) == (StatusCode.ERROR, "QUEUE_FULL")


def test_each_attempt_of_a_worker_is_a_child_of_the_same_span(
    traces: Traces, server: SQServer, client: SQClient
) -> None:
    def fail(message: Message) -> None:
        raise Reject("no such image") if message.attempt == 2 else RuntimeError("try again")

    client.enq("a")
    work(server, "default", fail, times=2)
    spans = traces.named("process default")
    assert {parents(span) for span in spans} == {traceparent(traces.one("enq default"))}
    told = [(span.attributes or {})["messaging.stiqueue.message.delivery_attempt"] for span in spans]
    assert told == [1, 2]
    assert [(span.attributes or {})["error.type"] for span in spans] == ["RuntimeError", "Reject"]
    dead = client.deq(timeout=SECONDS, queue="default.dead")
    assert dead is not None
    assert dead.headers["traceparent"] == traceparent(traces.one("enq default"))


def test_messages_of_many_threads_have_a_span_each(traces: Traces, client: SQClient) -> None:
    threads = [threading.Thread(target=client.enq, args=(str(number),)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    found = {each.headers["traceparent"] for each in client.peek_messages()}
    assert found == {traceparent(span) for span in traces.named("enq default")}
    assert len(found) == 32


WITHOUT = """
import json, sys
if sys.argv[1] == "imported":
    from opentelemetry import trace
from stiqueue import LocalSQClient, processing
client = LocalSQClient()
client.enq("a")
client.enq_many(list("bc"))
message = client.deq()
with processing(message):
    pass
print(json.dumps([message.headers, client._session.tracing, "opentelemetry" in sys.modules]))
"""


@pytest.mark.parametrize("how", ["absent", "imported"])
def test_a_program_that_has_set_up_nothing_imports_and_sends_nothing(how: str) -> None:
    done = run_python(WITHOUT, how)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [{}, None, how == "imported"]
