"""The gRPC server of one run: its services, its port, its health, and the steps of its stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from stiqueue.server import listening
from stiqueue.server.admin import AdminServicer
from stiqueue.server.pipe import PipeServicer
from stiqueue.server.requests import Requests
from stiqueue.server.servicer import QueueServicer
from stiqueue.server.streams import AllStreams
from stiqueue.settings import Settings
from stiqueue.v1 import admin_pb2_grpc, pipe_pb2_grpc, queue_pb2_grpc
from stiqueue.wire import settings as wire_settings
from stiqueue.wire.metadata import PIPE_SERVICE_NAME, SERVICE_NAME

END_SECONDS = 1.0
"""The time limit for streams to finish after the server ended them."""
FLUSH_SECONDS = 0.5
"""The time limit for gRPC to send the last answers. Old versions never confirm an idle connection's goodbye."""


class RpcServer:
    """StiQueue's services, the user's services, health and reflection, on one port."""

    def __init__(
        self,
        settings: Settings,
        requests: Requests,
        interceptors: Sequence[Any],
        add_services: Callable[[grpc.aio.Server], list[str]],
    ) -> None:
        """Create the server without listening. `add_services` adds the user's services and returns their names."""
        self._settings = settings
        self._requests = requests
        self.streams = streams = AllStreams(settings.max_consumers, requests.guard)
        self._server = grpc.aio.server(interceptors=interceptors, options=listening.channel_options(settings))
        queue_pb2_grpc.add_QueueServiceServicer_to_server(QueueServicer(requests, streams), self._server)
        pipe_pb2_grpc.add_PipeServiceServicer_to_server(PipeServicer(requests, streams), self._server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(AdminServicer(requests, streams), self._server)
        self._names = [SERVICE_NAME, PIPE_SERVICE_NAME, wire_settings.SERVICE_NAME, *add_services(self._server)]
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflected = [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(reflected, self._server)

    async def listen(self, credentials: grpc.ServerCredentials | None) -> int:
        """Listen and return the port; until `open`, answer probes with NOT_SERVING and other calls with UNAVAILABLE.

        Raises:
            OSError: the address cannot be listened on.
        """
        port = listening.bind(self._server, self._settings.host, self._settings.port, credentials)
        await self._health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.start()
        return port

    async def open(self) -> None:
        """Begin to serve: the engine is ready."""
        self._requests.is_open = True
        for name in ("", *self._names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, grace: float, hurry: asyncio.Event) -> None:
        """Stop in steps that lose no message, for up to `grace` seconds or until `hurry` is set."""
        streams = self.streams
        # 1. Balancers and probes look elsewhere.
        await self._health.enter_graceful_shutdown()
        # 2. Nothing new comes in or goes out; a consumer that holds nothing is told to go elsewhere.
        self._requests.is_draining = True
        streams.deliveries.stop()
        # 3. Consumers settle what they hold, within the grace; a second signal cuts it short.
        waits = [asyncio.ensure_future(streams.deliveries.none.wait()), asyncio.ensure_future(hurry.wait())]
        await asyncio.wait(waits, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        # 4. What is still held goes back. The streams are ended here because the library would wait for them.
        # Pipes end last: acks come on them.
        for kind in (streams.deliveries, streams.pipes):
            kind.stop(now=True)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(kind.none.wait(), END_SECONDS)
        # 5. The last answers are sent.
        await self._server.stop(FLUSH_SECONDS)

    async def abort(self) -> None:
        """Stop at once, after a failed start."""
        await self._server.stop(0)


class ServiceNames:
    """A stand-in for a server, which records the names of the services that a generated function adds."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.ServiceRpcHandler]) -> None:
        """Remember the services' names."""
        self.found.extend(str(handler.service_name()) for handler in handlers)

    def add_registered_method_handlers(self, service_name: str, handlers: Any) -> None:
        """Do nothing: the generic handler of the same service has its name."""
