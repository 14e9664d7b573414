"""Works on messages, one at a time, until there was none for a second: python worker.py HOST:PORT QUEUE MILLISECONDS"""

import os
import sys
import time

from stiqueue import SQClient

if len(sys.argv) != 4:
    sys.exit("usage: worker.py HOST:PORT QUEUE MILLISECONDS")
target, queue, milliseconds = sys.argv[1:]
host, _, port = target.rpartition(":")
# As for the command stiqueue: a PEM file with the server's authority, and the token.
access = {"tls": os.environ.get("STIQUEUE_TLS_CA"), "token": os.environ.get("STIQUEUE_TOKEN")}

with SQClient(host, int(port), queue=queue, consumer="a worker in Python", **access) as client:
    # Goes on by itself after a restart of the server, and acks what the loop leaves behind; here each says so itself.
    for message in client.consume(prefetch=10, timeout=1.0):
        time.sleep(int(milliseconds) / 1000)  # the work
        print(message.decode(), flush=True)
        if message.wants_reply:
            message.reply(message)  # which acks it as well
        else:
            message.ack()
