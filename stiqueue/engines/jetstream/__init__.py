"""The engine for more than one machine: messages live in a NATS JetStream cluster, this process is a gateway to it.

Any number of gateways serve the same queues. A gateway keeps nothing but the leases of its own `Deq` streams.

| module | what lives there |
|---|---|
| `cluster` | the connection: requests, confirmations, errors |
| `checks` | what a cluster must promise before it is trusted |
| `names`, `envelope` | queues as streams and subjects; our messages as those of NATS |
| `streams` | makes streams and remembers them |
| `publishing` | `Enq` |
| `consumer`, `leases` | `Deq` and `Ack` |
| `gateways` | what gateways ask each other |
| `looking` | `Cnt` and `Peek` |
| `engine` | joins them |
"""

from stiqueue.engines.jetstream.engine import JetStreamEngine

__all__ = ["JetStreamEngine"]
