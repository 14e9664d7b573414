"""Enqueues numbered messages: python producer.py HOST:PORT QUEUE COUNT"""

import sys

from stiqueue import SQClient

if len(sys.argv) != 4:
    sys.exit("usage: producer.py HOST:PORT QUEUE COUNT")
target, queue, count = sys.argv[1:]
host, _, port = target.rpartition(":")

with SQClient(host, int(port), queue=queue) as client:
    for number in range(1, int(count) + 1):
        client.enq(str(number))  # raises when it is not confirmed; `enq_many` is faster
print("enqueued", count)
