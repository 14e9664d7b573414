"""Asks and waits for the answers, one after another: python caller.py HOST:PORT QUEUE COUNT"""

import sys

from stiqueue import SQClient

if len(sys.argv) != 4:
    sys.exit("usage: caller.py HOST:PORT QUEUE COUNT")
target, queue, count = sys.argv[1:]
host, _, port = target.rpartition(":")

with SQClient(host, int(port), queue=queue) as client:
    for number in range(1, int(count) + 1):
        print(client.call(str(number), timeout=30).decode(), flush=True)
