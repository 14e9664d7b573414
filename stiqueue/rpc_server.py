"""The gRPC server of one run: its services, its port, what probes are told, and the steps of its stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from stiqueue import listening
from stiqueue.servicer import QueueServicer
from stiqueue.settings import Settings
from stiqueue.v1 import queue_pb2_grpc
from stiqueue.wire import SERVICE_NAME

END_SECONDS = 1.0
"""How long streams that were ended may take to be gone."""
FLUSH_SECONDS = 0.5
"""How long the library may take to send the last answers. An old gRPC never confirms the goodbye while it is idle."""


class RpcServer:
    """Our service, those of the user, health and reflection, on one port."""

    def __init__(
        self,
        settings: Settings,
        servicer: QueueServicer,
        interceptors: Sequence[Any],
        add_services: Callable[[grpc.aio.Server], list[str]],
    ) -> None:
        """Put it together; nothing is opened. `add_services` adds those of the user and returns their names."""
        self._settings = settings
        self._servicer = servicer
        self._server = grpc.aio.server(interceptors=interceptors, options=listening.channel_options(settings))
        queue_pb2_grpc.add_QueueServiceServicer_to_server(servicer, self._server)
        self._names = [SERVICE_NAME, *add_services(self._server)]
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflected = [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(reflected, self._server)

    async def listen(self, credentials: grpc.ServerCredentials | None) -> int:
        """Answer probes with NOT_SERVING, and all else with UNAVAILABLE; return the port.

        Raises:
            OSError: the address cannot be listened on.
        """
        port = listening.bind(self._server, self._settings.host, self._settings.port, credentials)
        await self._health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._server.start()
        return port

    async def open(self) -> None:
        """Begin to serve: the engine is ready."""
        self._servicer.open()
        for name in ("", *self._names):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, grace: float, hurry: asyncio.Event) -> None:
        """Stop step by step, for up to `grace` seconds or until `hurry`: each step sees that the next loses nothing."""
        servicer = self._servicer
        # 1. Balancers and probes look elsewhere.
        await self._health.enter_graceful_shutdown()
        # 2. Nothing new comes in or goes out; a consumer that holds nothing is told to go elsewhere.
        servicer.drain()
        # 3. Consumers settle what they hold, within the grace; a second signal cuts it short.
        waits = [asyncio.ensure_future(servicer.no_streams.wait()), asyncio.ensure_future(hurry.wait())]
        await asyncio.wait(waits, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        # 4. What is still held goes back. The streams are ended here because the library would wait for them.
        servicer.end_streams()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(servicer.no_streams.wait(), END_SECONDS)
        # 5. The last answers are sent.
        await self._server.stop(FLUSH_SECONDS)

    async def abort(self) -> None:
        """Stop at once, after a failed start."""
        await self._server.stop(0)


class ServiceNames:
    """Stands in for a server, to learn the names of the services that a generated function adds."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.ServiceRpcHandler]) -> None:
        """Remember the services' names."""
        self.found.extend(str(handler.service_name()) for handler in handlers)

    def add_registered_method_handlers(self, service_name: str, handlers: Any) -> None:
        """Nothing to learn: the generic handler of the same service has its name."""
