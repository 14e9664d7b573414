"""Tracing by OpenTelemetry: one trace from `enq`, through the queue, to the work on the message.

The trace travels in a message's headers, as W3C's ``traceparent`` and ``tracestate``. This needs the extra ``otel`` and
a tracer provider that the program has set up; otherwise it imports nothing and does nothing.
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
        """The headers to enqueue them with."""

    def sent_one(self, message_id: int, body: bytes) -> None:
        """Note that the message is enqueued."""
        self._span.set_attributes({"messaging.message.id": str(message_id), "messaging.message.body.size": len(body)})

    def sent_many(self, number: int) -> None:
        """Note that messages are enqueued."""
        self._span.set_attribute("messaging.batch.message_count", number)


class Tracing:
    """Makes the spans of messages by OpenTelemetry's conventions for messaging. Thread-safe."""

    def __init__(self, tracer: Tracer) -> None:
        """Make them by `tracer`."""
        # Imported only when tracing is in use.
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = tracer
        self._propagator = TraceContextTextMapPropagator()
        self._producer, self._consumer = SpanKind.PRODUCER, SpanKind.CONSUMER

    @contextmanager
    def sending(self, queue: str, headers: Mapping[str, str]) -> Iterator[Sending]:
        """Send messages to `queue` in a span, and add it to their headers.

        If the headers have no room for it, they stay unchanged: the message is sent, and its trace ends here.
        """
        with self._span("enq", "send", queue, self._producer) as span:
            carrier: dict[str, str] = {}
            self._propagator.inject(carrier)
            others = {name: text for name, text in headers.items() if name not in limits.TRACE_HEADERS}
            yield Sending(span, _fitting(others | carrier) or headers)

    @contextmanager
    def processing(self, message: Message) -> Iterator[Span]:
        """Work on `message` in a child of the span in which it was sent."""
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
    """Return the maker of spans; None unless this program has set up an OpenTelemetry tracer provider."""
    # If OpenTelemetry is not imported, no tracer is configured, and the program need not pay for the import.
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

    For messages from `deq` or `consume`; `Worker` does it by itself. Without a tracer provider it does nothing.

    For example:

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
    """Return `headers` if they are valid and within the limits, else None."""
    try:
        limits.check_headers(headers)
    except (InvalidRequest, AttributeError, TypeError):
        return None
    return headers
