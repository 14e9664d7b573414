"""The engine for several machines: a gateway to a NATS JetStream cluster that keeps the messages.

Any number of gateways serve the same queues. A gateway keeps only the leases of its own `Deq` streams.

| module | content |
|---|---|
| `cluster`, `client`, `answers` | the connection: requests, confirmations, errors |
| `checks` | the settings that a cluster must have to be trusted |
| `names`, `envelope` | queues as streams and subjects; StiQueue messages as NATS messages |
| `streams` | creates streams and remembers them |
| `publishing`, `batches` | `Enq` |
| `consumer`, `pull`, `lease`, `leases` | `Deq` and `Ack` |
| `gateways` | the protocol between gateways |
| `looking`, `totals` | `Cnt` and `Peek` |
| `engine` | joins them |
"""

from stiqueue.engines.jetstream.engine import JetStreamEngine

__all__ = ["JetStreamEngine"]
