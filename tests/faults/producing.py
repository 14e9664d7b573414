"""A producer: sends numbered messages in batches, and writes down what it was told about each."""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator

import grpc

from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1 import queue_pb2_grpc

from .control import Control
from .notebook import CHANNEL_OPTIONS, Notebook, outcome_of
from .recorder import Recorder, make_body

CALL_SECONDS = 5.0
RETRY_SECONDS = 0.05


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options of a producer."""
    parser.add_argument("--count", type=int, default=0, help="messages to send; 0: until stopped")
    parser.add_argument("--batch", type=int, default=1, help="messages a request: at random from 1 to this")
    parser.add_argument("--size", type=int, default=0, help="bytes a body, at least")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second; 0: as many as it can")
    parser.add_argument("--no-request-id", action="store_true", help="send without one, and never again")
    parser.add_argument("--give-up", type=float, default=60.0, help="seconds to try one request")
    parser.add_argument("--via", choices=("stub", "client"), default="stub")


def produce(options: argparse.Namespace, control: Control, recorder: Recorder) -> None:
    """Send until all is sent or the test says stop; each batch until its outcome is known, or given up."""
    sender = (ClientSender if options.via == "client" else StubSender)(
        options, control, Notebook(recorder, options.queue)
    )
    control.listen()
    control.report("ready")
    begin = time.monotonic()
    sent = 0
    for number, values in enumerate(_batches(options)):
        late = begin + number / options.rate - time.monotonic() if options.rate else 0.0
        if control.stopped.wait(max(0.0, late)) if late > 0 else control.stopped.is_set():
            break
        sender.send(values)
        sent += len(values)
    control.report("sent", sent)


def _batches(options: argparse.Namespace) -> Iterator[list[str]]:
    """Yield the values of each request."""
    sizes = random.Random(options.seed)
    counter = 1
    while not options.count or counter <= options.count:
        size = sizes.randint(1, options.batch)
        if options.count:
            size = min(size, options.count - counter + 1)
        yield [f"{options.name}-{n}" for n in range(counter, counter + size)]
        counter += size


class StubSender:
    """Sends over the bare stub; a retry has the same request id."""

    def __init__(self, options: argparse.Namespace, control: Control, notebook: Notebook) -> None:
        """Connect on first use."""
        self._options = options
        self._control = control
        self._notebook = notebook
        self._stub = queue_pb2_grpc.QueueServiceStub(grpc.insecure_channel(options.target, CHANNEL_OPTIONS))

    def send(self, values: list[str]) -> None:
        """Send one batch."""
        safe = not self._options.no_request_id
        request = pb.EnqRequest(
            queue=self._options.queue,
            bodies=[make_body(value, self._options.size) for value in values],
            request_id=values[0] if safe else "",
        )
        give_up = time.monotonic() + self._options.give_up
        while not self._tried(request, values, safe) and safe and time.monotonic() < give_up:
            if self._control.stopped.wait(RETRY_SECONDS):
                return

    def _tried(self, request: pb.EnqRequest, values: list[str], safe: bool) -> bool:
        """Call once; return whether the outcome is known."""
        self._notebook.enqueues(values, "invoke", safe)
        try:
            self._stub.Enq(request, timeout=CALL_SECONDS)
            outcome = "ok"
        except grpc.RpcError as error:
            outcome = outcome_of(error)
        self._notebook.enqueues(values, outcome, safe)
        return outcome != "unknown"


class ClientSender:
    """Sends with `SQClient`, which retries by itself: one batch is one message."""

    def __init__(self, options: argparse.Namespace, control: Control, notebook: Notebook) -> None:
        """Connect on first use."""
        from stiqueue import SQClient  # here, so that workers on the stub start faster

        host, _, port = options.target.rpartition(":")
        self._client = SQClient(host, int(port), queue=options.queue, timeout=options.give_up)
        self._size = options.size
        self._notebook = notebook

    def send(self, values: list[str]) -> None:
        """Send each message by itself."""
        from stiqueue import LimitReached, StiQueueError

        for value in values:
            self._notebook.enqueues([value], "invoke")
            try:
                self._client.enq(make_body(value, self._size))
                outcome = "ok"
            except LimitReached:
                outcome = "fail"
            except StiQueueError:
                outcome = "unknown"
            self._notebook.enqueues([value], outcome)
