"""A consumer in a thread of the test, on a connection as gRPC makes it by default: it takes, holds and reads on."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import grpc
from google.protobuf.duration_pb2 import Duration

from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1 import queue_pb2_grpc

from .notebook import Held, Notebook
from .processes import START_SECONDS, wait_until
from .recorder import Recorder
from .run import Run

PLAIN: list[tuple[str, int]] = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
"""What a program in any language has by default: no pings of its own. Each channel is a connection of its own."""
ACK_SECONDS = 10.0


class Holder:
    """Holds what one stream is given, until it is told to settle it or the stream ends. Records as workers do."""

    def __init__(
        self,
        run: Run,
        name: str,
        *,
        target: str | None = None,
        queue: str = "default",
        via: str = "",
        prefetch: int = 1,
        ack_timeout: int = 0,
        options: list[tuple[str, int]] = PLAIN,
    ) -> None:
        """Open the stream; return when the server has it. `via` names the proxy that `target` is, if it is one."""
        self.name = name
        self.held: list[Held] = []
        """What it has received and not settled."""
        self.times: list[float] = []
        """When each of its messages came, in seconds of the monotonic clock."""
        self.how = ""
        """How the stream ended: a gRPC code, and the server's or the library's words."""
        self.ended_at = 0.0
        self.has_ended = threading.Event()
        self._recorder = Recorder(run.directory, name)
        self._notebook = Notebook(self._recorder, queue)
        self._channel = grpc.insecure_channel(target or run.servers[0].target, options)
        self._stub = queue_pb2_grpc.QueueServiceStub(self._channel)
        request = pb.DeqRequest(queue=queue, prefetch=prefetch, consumer=name)
        if ack_timeout:
            request.ack_timeout.CopyFrom(Duration(seconds=ack_timeout))
        self._notebook.opens(name, via, ack_timeout)
        self._call = self._stub.Deq(request, wait_for_ready=True, timeout=600)
        self._call.initial_metadata()
        self._thread = threading.Thread(target=self._read, name=name, daemon=True)
        self._thread.start()

    def wait_holding(self, number: int, seconds: float = START_SECONDS) -> None:
        """Wait until it holds so many messages."""
        wait_until(lambda: len(self.held) >= number, seconds, f"{self.name} holds {number}")

    def ack(self) -> int:
        """Acknowledge all that it holds; return how many leases were stale."""
        held, self.held = self.held, []
        self._notebook.settles("ack", held, "invoke")
        answer = self._stub.Ack(pb.AckRequest(lease_ids=[each.lease for each in held]), timeout=ACK_SECONDS)
        self._notebook.settles("ack", held, "ok", answer.stale_lease_ids)
        return len(answer.stale_lease_ids)

    def close(self) -> None:
        """Give back what it holds, and hang up."""
        if not self.has_ended.is_set():
            self._notebook.ends(self.name, "cancel")
            self._call.cancel()
        self._thread.join(ACK_SECONDS)
        self._channel.close()
        self._recorder.close()

    def __enter__(self) -> Holder:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hang up."""
        self.close()

    def _read(self) -> None:
        try:
            for response in self._call:
                now = time.monotonic()
                held = self._notebook.receives(response.messages, self.name)
                self.times += [now] * len(held)
                self.held += held
            how = "OK"
        except grpc.RpcError as error:
            how = f"{error.code().name} {error.details()}"
        self.ended_at = time.monotonic()
        if not how.startswith("CANCELLED Locally"):
            self._notebook.ends(self.name, how.split()[0])
        self.how = how
        self.has_ended.set()
