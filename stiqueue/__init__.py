"""StiQueue: a message queue you can hold in your head.

python -m stiqueue.sqserver

from stiqueue import SQClient
client = SQClient()
client.enq("Hello, World!")
print(client.deq().decode())
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Both must be set before grpc is imported for the first time: so that a client works on both sides of a fork, and
# that users see our log lines rather than those of gRPC's core.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "1")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from stiqueue._version import __version__
from stiqueue.errors import (
    AccessDenied,
    Closed,
    DiskFull,
    InvalidRequest,
    LeaseStale,
    LimitReached,
    MessageLeased,
    NoAnswer,
    NotSupported,
    QueueFull,
    Reject,
    RemoteError,
    ServerError,
    SettingFixed,
    StiQueueError,
    StoreDamaged,
    StoreError,
    StoreInUse,
    TooManyConsumers,
    Unauthenticated,
    Unavailable,
)
from stiqueue.message import Counts, Message, PeekedMessage, State
from stiqueue.queue_settings import QueueSettings

if TYPE_CHECKING:
    from stiqueue.aio import AsyncMessage, AsyncSQClient
    from stiqueue.client.calls.tls import TLS
    from stiqueue.client.tracing import processing
    from stiqueue.cron import Schedule
    from stiqueue.local import LocalSQClient
    from stiqueue.sqclient import SQClient
    from stiqueue.sqserver import SQServer
    from stiqueue.worker import Worker

__all__ = [
    "TLS",
    "AccessDenied",
    "AsyncMessage",
    "AsyncSQClient",
    "Closed",
    "Counts",
    "DiskFull",
    "InvalidRequest",
    "LeaseStale",
    "LimitReached",
    "LocalSQClient",
    "Message",
    "MessageLeased",
    "NoAnswer",
    "NotSupported",
    "PeekedMessage",
    "QueueFull",
    "QueueSettings",
    "Reject",
    "RemoteError",
    "SQClient",
    "SQServer",
    "Schedule",
    "ServerError",
    "SettingFixed",
    "State",
    "StiQueueError",
    "StoreDamaged",
    "StoreError",
    "StoreInUse",
    "TooManyConsumers",
    "Unauthenticated",
    "Unavailable",
    "Worker",
    "__version__",
    "processing",
]


_MODULES = {
    "AsyncMessage": "stiqueue.aio",
    "AsyncSQClient": "stiqueue.aio",
    "LocalSQClient": "stiqueue.local",
    "SQClient": "stiqueue.sqclient",
    "SQServer": "stiqueue.sqserver",
    "Schedule": "stiqueue.cron",
    "TLS": "stiqueue.client.calls.tls",
    "Worker": "stiqueue.worker",
    "processing": "stiqueue.client.tracing",
}


def __getattr__(name: str) -> Any:
    """Import on first use what not every program needs, gRPC with it; see `stiqueue.polling`."""
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
