"""Counts the words of the Python standard library, and loses none of them although a worker is killed.

    python examples/wordcount.py [DIRECTORY]

Two producers enqueue the path of every .py file, four workers take the paths and count. The worker that gets the
message in the middle is killed by SIGKILL while it holds it: the server gives the message to another worker. Ends with
0 only if every file was counted once, by message id, and the total is that of one plain process.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import sysconfig
from collections import Counter
from itertools import islice
from pathlib import Path

from stiqueue import SQClient, SQServer

PATIENCE = 60.0
"""Seconds after which something must have gone wrong."""


def count_words(path: str) -> int:
    return len(Path(path).read_bytes().split())


def produce(port: int, paths: list[str]) -> None:
    with SQClient(port=port, queue="files") as client:
        client.enq_many(paths)


def work(port: int, name: str, fatal_id: int) -> None:
    with SQClient(port=port, queue="files", consumer=name) as client:
        while path := client.deq():  # acks the message before; an empty message says that there are no more
            if path.id == fatal_id and path.attempt == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            counted = {
                "id": path.id,
                "path": path.decode(),
                "words": count_words(path.decode()),
                "attempt": path.attempt,
            }
            # Whoever dies between this line and the ack has the file counted again. The server remembers the
            # request id, so that the second result is not a second message.
            client.enq(json.dumps({**counted, "worker": name}), queue="counted", request_id=f"counted-{path.id}")


def main() -> int:
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else sysconfig.get_path("stdlib"))
    paths = [str(path) for path in sorted(directory.rglob("*.py")) if "site-packages" not in path.parts]
    expected = {path: count_words(path) for path in paths}
    fatal_id = (len(paths) + 1) // 2

    with SQServer(port=0) as server, SQClient(port=server.port, queue="counted") as client:
        start = multiprocessing.get_context("spawn").Process
        names = [f"worker-{number}" for number in range(1, 5)]
        producers = [start(target=produce, args=(server.port, paths[half::2])) for half in (0, 1)]
        workers = [start(target=work, args=(server.port, name, fatal_id)) for name in names]
        for process in producers + workers:
            process.start()

        arriving = client.consume(prefetch=100, timeout=PATIENCE)
        results = [json.loads(message) for message in islice(arriving, len(paths))]
        client.enq_many([b""] * (len(workers) - 1), queue="files")
        for process in producers + workers:
            process.join(PATIENCE)
        surplus = list(client.consume(timeout=0))

    killed = [name for name, process in zip(names, workers, strict=True) if process.exitcode == -signal.SIGKILL]
    again = [(result["id"], result["worker"]) for result in results if result["attempt"] > 1]
    shares = Counter(result["worker"] for result in results)
    total = sum(result["words"] for result in results)
    print(f"{len(paths)} files; {', '.join(f'{name} counted {shares[name]}' for name in names)}")
    print(f"killed while it held message {fatal_id}: {killed}; counted at last by: {again}")
    print(f"words: {total} by the workers, {sum(expected.values())} by one plain process")
    right = (
        len({result["id"] for result in results}) == len(results) == len(paths)
        and not surplus
        and {result["path"]: result["words"] for result in results} == expected
        and len(killed) == 1
        and fatal_id in dict(again)
    )
    print("equal, each file once" if right else "NOT EQUAL")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
