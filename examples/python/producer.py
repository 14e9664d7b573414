"""Enqueues numbered messages: python producer.py HOST:PORT QUEUE COUNT"""

import os
import sys

from stiqueue import SQClient

if len(sys.argv) != 4:
    sys.exit("usage: producer.py HOST:PORT QUEUE COUNT")
target, queue, count = sys.argv[1:]
host, _, port = target.rpartition(":")
# As for the command stiqueue: a PEM file with the server's authority, and the token.
access = {"tls": os.environ.get("STIQUEUE_TLS_CA"), "token": os.environ.get("STIQUEUE_TOKEN")}

with SQClient(host, int(port), queue=queue, **access) as client:
    for number in range(1, int(count) + 1):
        client.enq(str(number))  # raises when it is not confirmed; `enq_many` is faster
print("enqueued", count)
