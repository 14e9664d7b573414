"""A client for each system, all with the same operations; see `benchmark.clients.base`."""

from __future__ import annotations

from importlib import import_module

from benchmark.clients.base import Client

_CLASSES = {
    "echo": "echo:EchoClient",
    "echo-async": "echo:AsyncEchoClient",
    "original": "original:OriginalClient",
    "stiqueue": "stiqueue2:StiQueueClient",
    "stiqueue-async": "stiqueue2aio:AsyncStiQueueClient",
    "crowd": "crowd:Crowd",
    "bystander": "stiqueue2:Bystander",
    "redis-streams": "redis7:StreamsClient",
    "redis-streams-hiredis": "redis7:HiredisStreamsClient",
    "redis-lists": "redis7:ListsClient",
    "beanstalkd": "beanstalk:BeanstalkClient",
    "nats-memory": "nats2:MemoryClient",
    "nats-file": "nats2:FileClient",
    "nats-cluster": "nats2:ReplicatedClient",
    "nats-cluster-queue": "nats2:WorkQueueClient",
}


def connect(kind: str, port: int) -> Client:
    """Return a client of `kind` for the server on a port of this machine.

    Only its own module is imported: each kind needs packages that not every environment has.
    """
    module, name = _CLASSES[kind].split(":")
    made: Client = getattr(import_module(f"benchmark.clients.{module}"), name)(port)
    return made
