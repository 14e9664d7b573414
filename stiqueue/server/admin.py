"""The settings of queues as gRPC calls, for operators."""

from __future__ import annotations

from stiqueue.errors import InvalidRequest
from stiqueue.limits import check_pattern, check_settings
from stiqueue.queue_settings import QueueSettings
from stiqueue.rules.engine import ready
from stiqueue.server.access.tokens import Right
from stiqueue.server.delivery import Context
from stiqueue.server.servicer import Servicer, reports_errors
from stiqueue.v1 import admin_pb2 as pb
from stiqueue.v1 import admin_pb2_grpc
from stiqueue.wire.settings import read_settings, write_report, write_settings


class AdminServicer(Servicer, admin_pb2_grpc.AdminServiceServicer):
    """Serves `stiqueue.v1.AdminService`, on one event loop."""

    @reports_errors
    async def Configure(self, request: pb.ConfigureRequest, context: Context) -> pb.ConfigureResponse:
        """Change settings; see ``admin.proto``."""
        requests, reset = self.requests, list(request.reset)
        change = read_settings(request.settings)
        check_settings(change, reset)
        name = check_pattern(change.queue)
        requests.check(Right.ADMIN, name)
        settings = await ready(requests.engine.configure(change, reset))
        self._log(name, change, reset, context)
        return pb.ConfigureResponse(settings=write_settings(settings))

    @reports_errors
    async def Settings(self, request: pb.SettingsRequest, context: Context) -> pb.SettingsResponse:
        """Show settings; see ``admin.proto``."""
        requests = self.requests
        if "*" in request.queue:
            raise InvalidRequest(f"queue: {request.queue!r} is a pattern; name a queue, or none", "BAD_QUEUE_NAME")
        queue = check_pattern(request.queue) if request.queue else ""
        requests.check(Right.ADMIN, queue or "*")
        return write_report(requests.engine.settings(queue))

    def _log(self, name: str, change: QueueSettings, reset: list[str], context: Context) -> None:
        """Log a change with its author."""
        done = [str(change)] if change else []
        if reset:
            done.append(f"reset {', '.join(reset)}")
        guard = self.requests.guard
        who = context.peer() + (f", token {guard.current().name}" if guard is not None else "")
        if done:
            self.requests.logger.info("settings of %s: %s (by %s)", name, ", ".join(done), who, extra={"queue": name})
