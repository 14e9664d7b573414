"""Consumers: receive, write down, settle as they are told to."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Sequence

import grpc
from google.protobuf.duration_pb2 import Duration

from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1 import queue_pb2_grpc

from .control import Control
from .notebook import CHANNEL_OPTIONS, Held, Notebook
from .recorder import Recorder, read_body

CALL_SECONDS = 5.0
RETRY_SECONDS = 0.05
OPEN_SECONDS = 10.0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options of a consumer."""
    parser.add_argument("--prefetch", type=int, default=1)
    parser.add_argument("--ack-timeout", type=float, default=0.0, help="seconds; 0: the stream alone is the lease")
    parser.add_argument("--no-ack", action="store_true")
    parser.add_argument(
        "--then",
        choices=("ack", "hold", "keep", "sleep"),
        default="ack",
        help="what it does with a message; keep: hold it, and settle it even if its stream has ended meanwhile",
    )
    parser.add_argument("--think", type=float, default=0.0, help="seconds between a delivery and its ack")
    parser.add_argument("--once", action="store_true", help="one stream, and its end is the worker's end")
    parser.add_argument("--via", default="", help="the name of the proxy it goes through")


class Consumer:
    """Consumes from the bare stub, one stream after another. Orders come from another thread than deliveries.

    It reports ``ready`` when the first stream is open, ``holding N`` when it holds more messages (unless it acks), and
    how each stream ended. Orders: ``ack``, ``nack`` settle all that it holds.
    """

    def __init__(self, options: argparse.Namespace, control: Control, recorder: Recorder) -> None:
        """Connect on first use."""
        self._options = options
        self._control = control
        self._notebook = Notebook(recorder, options.queue)
        self._stub = queue_pb2_grpc.QueueServiceStub(grpc.insecure_channel(options.target, CHANNEL_OPTIONS))
        self._held: list[Held] = []
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        """Held from an `Ack` to the report of its answer, which comes before that of the stream's end."""
        self._call: grpc.RpcContext | None = None
        self._stream = ""

    def run(self) -> None:
        """Consume until the test says stop, or with ``--once`` until the stream ends."""
        control = self._control
        for order in ("ack", "nack"):
            control.on(order, lambda op=order: self._settle_held(op))  # type: ignore[misc]
        control.on("stop", self._cancel)
        control.listen()
        number = 0
        while not control.stopped.is_set():
            number += 1
            self._consume(f"{self._options.name}.{number}", first=number == 1)
            if self._options.once or control.stopped.wait(RETRY_SECONDS):
                break

    def _consume(self, stream: str, first: bool) -> None:
        options = self._options
        request = pb.DeqRequest(
            queue=options.queue, prefetch=options.prefetch, no_ack=options.no_ack, consumer=options.name
        )
        if options.ack_timeout:
            request.ack_timeout.CopyFrom(Duration(nanos=int(options.ack_timeout * 1e9) % 10**9))
            request.ack_timeout.seconds = int(options.ack_timeout)
        self._notebook.opens(stream, options.via, options.ack_timeout, options.no_ack)
        how = "OK"
        with self._lock:
            if self._control.stopped.is_set():
                return
            self._stream = stream
            self._call = call = self._stub.Deq(request, wait_for_ready=True)
        try:
            call.initial_metadata()
            if first:
                self._control.report("ready")
            for response in call:
                self._receive(self._notebook.receives(response.messages, stream))
        except grpc.RpcError as error:
            how = error.code().name
        with self._settling, self._lock:
            if self._options.then != "keep":
                self._held.clear()
            self._call = None
        if not self._control.stopped.is_set():
            self._notebook.ends(stream, how)
        self._control.report("ended", how)

    def _receive(self, held: list[Held]) -> None:
        with self._lock:
            self._held.extend(held)
            holding = len(self._held)
        if self._options.then == "ack" and not self._options.no_ack:
            if self._options.think:
                self._control.stopped.wait(self._options.think)
            self._settle_held("ack")
        elif self._options.then != "ack":
            self._control.report("holding", holding)
            if self._options.then == "sleep":
                self._control.stopped.wait()

    def _settle_held(self, op: str) -> None:
        with self._settling:
            with self._lock:
                held, self._held = self._held, []
            if held:
                stale = self._settle(op, held)
                if self._options.then != "ack":
                    self._control.report(op + "ed", len(held) - stale, "stale", stale)

    def _settle(self, op: str, held: Sequence[Held]) -> int:
        """Call once, write the answers down; return how many leases were stale."""
        self._notebook.settles(op, held, "invoke")
        outcome = pb.OUTCOME_ACK if op == "ack" else pb.OUTCOME_REQUEUE
        request = pb.AckRequest(lease_ids=[each.lease for each in held], outcome=outcome)
        try:
            answer = self._stub.Ack(request, timeout=CALL_SECONDS)
        except grpc.RpcError:
            self._notebook.settles(op, held, "unknown")
            self._cancel()  # a server that lives may hold them for this stream as long as it lasts
            return 0
        self._notebook.settles(op, held, "ok", answer.stale_lease_ids)
        return len(answer.stale_lease_ids)

    def _cancel(self) -> None:
        with self._lock:
            if self._call is not None:
                self._notebook.ends(self._stream, "cancel")
                self._call.cancel()


def consume_with_client(options: argparse.Namespace, control: Control, recorder: Recorder) -> None:
    """Consume with `SQClient`, which reconnects by itself, until the test says stop: `deq`, then `ack`."""
    from stiqueue import SQClient, StiQueueError

    notebook = Notebook(recorder, options.queue)
    host, _, port = options.target.rpartition(":")
    client = SQClient(host, int(port), queue=options.queue, auto_ack=False)
    notebook.opens(options.name, options.via, options.ack_timeout, reopens=True)
    control.listen()
    control.report("ready")
    while not control.stopped.is_set():
        try:
            message = client.deq(timeout=0.5)
        except StiQueueError as error:
            control.report("raised", type(error).__name__)
            continue
        if message is None:
            continue
        held = [Held(read_body(message), message.lease_id, message.id, message.attempt)]
        facts = {"queue": options.queue, "id": message.id, "lease": message.lease_id, "attempt": message.attempt}
        recorder.write("deq", held[0].value, "ok", **facts, stream=options.name)
        notebook.settles("ack", held, "invoke")
        try:
            answer = "ok" if message.ack() else "stale"
        except StiQueueError:
            answer = "unknown"
        notebook.settles("ack", held, answer)
    notebook.ends(options.name, "stop")
    client.close()
