"""A process of workers that are killed at any time: each takes a message, writes it down, acks it.

The arguments are a port, the process's name, the file to write to, and how many threads there are.
"""

from __future__ import annotations

import os
import sys
import threading
import time

from stiqueue import SQClient, StiQueueError


def work(port: int, name: str, file: int) -> None:
    """Work for ever."""
    client = SQClient(port=port, auto_ack=False, timeout=5.0)

    def note(what: str, body: str) -> None:
        os.write(file, f"{time.monotonic()!r} {what} {name} {body}\n".encode())  # one write, so that a line is whole

    while True:
        try:
            message = client.deq(timeout=1.0)
            if message is not None:
                body = message.decode()
                assert message.key == body.split()[0]
                note("got", body)
                note("done", body)
                if message.ack():
                    note("acked", body)
        except StiQueueError:
            continue  # the server was killed


def main() -> None:
    """Start the threads."""
    port, name, path, threads = sys.argv[1:]
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in range(int(threads)):
        threading.Thread(target=work, args=(int(port), f"{name}/{number}", file)).start()


if __name__ == "__main__":
    main()
