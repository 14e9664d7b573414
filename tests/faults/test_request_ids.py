"""Fault 64 on a cluster: a request id is remembered whatever happened to its message, its gateway and the servers.

A NATS server that starts rebuilds its list of message ids from what is left in the stream, and forgets all others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from support.nats_servers import NatsServer

from stiqueue import SQClient
from stiqueue.v1 import queue_pb2 as pb

from .processes import ServerProcess, wait_until
from .run import Run
from .site import Site

ANSWER_SECONDS = 60.0
"""How long a cluster that elects leaders may take to answer."""
SHORT = Duration(seconds=1)
REMEMBERED_SECONDS = 300.0


def requests() -> list[pb.EnqRequest]:
    """Return a request for each fate of a message; the queue is named after it."""
    return [
        pb.EnqRequest(queue="waits", request_id="waits", bodies=[b"waits"]),
        pb.EnqRequest(queue="acked", request_id="acked", bodies=[b"acked"]),
        pb.EnqRequest(queue="acked-many", request_id="any text: ä, and spaces", bodies=[b"a", b"b", b"c"]),
        pb.EnqRequest(queue="delayed", request_id="delayed", bodies=[b"delayed"], delay=SHORT),
        pb.EnqRequest(queue="delayed-many", request_id="delayed-many", bodies=[b"a", b"b"], delay=SHORT),
        pb.EnqRequest(queue="expired", request_id="expired", bodies=[b"expired"], ttl=SHORT),
        pb.EnqRequest(queue="rejected", request_id="rejected", bodies=[b"rejected"]),
        pb.EnqRequest(queue="full", request_id="full", bodies=[b"%d" % number for number in range(999)]),
    ]


@dataclass
class Asked:
    """Requests that were sent, with what they were answered."""

    run: Run
    answers: list[tuple[pb.EnqRequest, pb.EnqResponse]] = field(default_factory=list)
    since: float = 0.0

    def ask(self, gateway: ServerProcess) -> None:
        """Send each request for the first time."""
        for request in requests():
            answer = self._send(gateway, request)
            assert not answer.duplicate, request
            self.answers.append((request, answer))
        self.since = time.monotonic()

    def repeat(self, *gateways: ServerProcess) -> None:
        """Send each request again: it enqueues nothing and is answered as it was first."""
        for gateway in gateways:
            for request, first in self.answers:
                again = self._send(gateway, request)
                assert again.duplicate, request.queue
                assert (again.first_id, again.count) == (first.first_id, first.count), request.queue

    def _send(self, gateway: ServerProcess, request: pb.EnqRequest) -> pb.EnqResponse:
        give_up = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                return self.run.stub(gateway.target).Enq(request, timeout=10, wait_for_ready=True)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > give_up:
                    raise

    def settle(self, gateway: ServerProcess) -> None:
        """Let each message meet the fate that its queue names; afterwards only two queues have messages left."""
        for request, _ in self.answers:
            if request.queue in ("waits", "expired"):
                continue
            with SQClient("127.0.0.1", gateway.port, queue=request.queue, timeout=ANSWER_SECONDS) as client:
                messages = [client.deq(timeout=ANSWER_SECONDS) for _ in request.bodies]
                assert messages == list(request.bodies)
                if request.queue == "rejected":
                    (message,) = messages
                    message.dead_letter("for the test")
        wait_until(lambda: self.left() == {"waits": 1, "rejected.dead": 1}, ANSWER_SECONDS, "settled", every=0.1)

    def left(self) -> dict[str, int]:
        """Return how many messages there are, by queue."""
        counts = self.run.stub(self.run.servers[0].target).Cnt(pb.CntRequest(), timeout=10).queues
        return {each.queue: each.ready + each.leased + each.delayed for each in counts}


def roll(site: Site, stop: Callable[[NatsServer], None], between: Callable[[], None]) -> None:
    """Restart each server when all are well."""
    for node in site.cluster.nodes:
        stop(node)
        node.start(ready=False)
        site.cluster.wait_ready()
        between()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_64_a_request_id_survives_a_rolling_restart_of_the_cluster(run: Run) -> None:
    with Site(run).start() as site:
        one, two = site.gateways
        asked = Asked(run)
        asked.ask(one)
        asked.repeat(one, two)
        asked.settle(two)
        asked.repeat(one, two)
        run.inject.kill(one)
        run.inject.restart(one)
        asked.repeat(one)
        roll(site, NatsServer.kill, lambda: asked.repeat(two))
        asked.repeat(one, two)
        assert asked.left() == {"waits": 1, "rejected.dead": 1}


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_64_request_ids_long(run: Run) -> None:
    """Requests are repeated after a second, a minute, and at the end of the 5 minutes that are promised."""
    with Site(run).start() as site:
        one, two = site.gateways
        asked = Asked(run)
        asked.ask(one)
        asked.settle(two)
        time.sleep(1)
        asked.repeat(one, two)
        roll(site, NatsServer.terminate, lambda: asked.repeat(one, two))
        roll(site, NatsServer.kill, lambda: asked.repeat(one, two))
        for node in site.cluster.nodes:
            node.kill()
        site.start_dead()
        site.cluster.wait_ready()
        asked.repeat(one, two)
        time.sleep(max(0.0, asked.since + 60 - time.monotonic()))
        roll(site, NatsServer.kill, lambda: asked.repeat(one, two))
        time.sleep(max(0.0, asked.since + REMEMBERED_SECONDS - 6 - time.monotonic()))
        asked.repeat(one, two)
        assert asked.left() == {"waits": 1, "rejected.dead": 1}
