"""Tracing by OpenTelemetry: one trace from `enq`, through the queue, to the work on the message.

What a message was sent in travels in its headers, as W3C's ``traceparent`` and ``tracestate``. All of this needs the
extra ``otel`` and a tracer provider that the program has set up; else nothing is imported and nothing is done.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from stiqueue import limits
from stiqueue._version import __version__
from stiqueue.errors import InvalidRequest, StiQueueError
from stiqueue.message import Message

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

SYSTEM = "stiqueue"


class Sending:
    """Messages on their way into a queue, and the span of that."""

    def __init__(self, span: Span, headers: Mapping[str, str]) -> None:
        """Begin."""
        self._span = span
        self.headers = headers
        """What they are to be enqueued with."""

    def sent_one(self, message_id: int, body: bytes) -> None:
        """Tell of a message that is in the queue."""
        self._span.set_attributes({"messaging.message.id": str(message_id), "messaging.message.body.size": len(body)})

    def sent_many(self, number: int) -> None:
        """Tell of messages that are in the queue."""
        self._span.set_attribute("messaging.batch.message_count", number)


class Tracing:
    """Makes the spans of messages, as OpenTelemetry's conventions for messaging say. Thread-safe."""

    def __init__(self, tracer: Tracer) -> None:
        """Make them by `tracer`."""
        # Imported here, where it is certain that somebody wants it.
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()
        self._producer, self._consumer = SpanKind.PRODUCER, SpanKind.CONSUMER

    @contextmanager
    def sending(self, queue: str, headers: Mapping[str, str]) -> Iterator[Sending]:
        """Send messages to `queue` in a span of their own, named in their headers; those `headers` that are there stay.

        Where the two more find no room the headers are left as they are: the message goes through, its trace ends here.
        """
        with self._span("enq", "send", queue, self._producer) as span:
            carrier: dict[str, str] = {}
            self._propagator.inject(carrier)
            others = {name: text for name, text in headers.items() if name not in limits.TRACE_HEADERS}
            yield Sending(span, _fitting(others | carrier) or headers)

    @contextmanager
    def processing(self, message: Message) -> Iterator[Span]:
        """Work on `message` in a span that is a child of that in which it was sent."""
        sent_in = self._propagator.extract(message.headers)
        with self._span("process", "process", message.queue, self._consumer, sent_in) as span:
            span.set_attributes(
                {
                    "messaging.message.id": str(message.id),
                    "messaging.message.body.size": len(message),
                    "messaging.stiqueue.message.delivery_attempt": message.attempt,
                }
            )
            yield span

    @contextmanager
    def _span(self, name: str, operation: str, queue: str, kind: Any, parent: Any = None) -> Iterator[Span]:
        attributes = {
            "messaging.system": SYSTEM,
            "messaging.operation.name": name,
            "messaging.operation.type": operation,
            "messaging.destination.name": queue,
        }
        with self._tracer.start_as_current_span(
            f"{name} {queue}", context=parent, kind=kind, attributes=attributes
        ) as span:
            try:
                yield span
            except Exception as error:
                reason = error.reason if isinstance(error, StiQueueError) else type(error).__qualname__
                span.set_attribute("error.type", reason)
                raise


def find_tracing() -> Tracing | None:
    """Return what makes spans; None unless this program has set up a tracer provider of OpenTelemetry before."""
    # Who has not imported it has set up nothing, and does not pay for the import.
    trace: Any = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    provider = trace.get_tracer_provider()
    if isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
        return None
    return _tracing_of(provider)


@cache
def _tracing_of(provider: Any) -> Tracing:
    return Tracing(provider.get_tracer(SYSTEM, __version__))


@contextmanager
def processing(message: Message) -> Iterator[None]:
    """Work on `message`, in a span of OpenTelemetry that is a child of the one in which it was sent.

    For those who take messages by `deq` or `consume`; `Worker` does it by itself. Without a tracer provider it does
    nothing.

    Example:
        for message in client.consume():
            with processing(message):
                work_on(message)
    """
    tracing = find_tracing()
    if tracing is None:
        yield
    else:
        with tracing.processing(message):
            yield


def _fitting(headers: dict[str, str]) -> dict[str, str] | None:
    """Return `headers` if they are within the limits; None: they are not, or no headers at all."""
    try:
        limits.check_headers(headers)
    except (InvalidRequest, AttributeError, TypeError):
        return None
    return headers
