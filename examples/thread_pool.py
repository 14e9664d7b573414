"""A pool of threads that works on a queue, twice: with `Worker`, and the plain way.

python -m stiqueue.sqserver
python examples/thread_pool.py --port 1234
"""

from __future__ import annotations

import argparse
import threading
from concurrent.futures import ThreadPoolExecutor

from stiqueue import Message, Reject, SQClient, Worker

THREADS = 4


def square(job: Message) -> int:
    """Do one job; the third kind of number fails at first, and a word is not a job at all."""
    if not job.isdigit():
        raise Reject("not a number")
    number = int(job)
    if number % 3 == 0 and job.attempt == 1:
        raise RuntimeError("a bug that comes and goes")
    return number**2


def with_a_worker(port: int, numbers: int) -> int:
    """Ack, retry, reject and stop: all of it is `Worker`'s."""
    results: dict[int, int] = {}
    done = threading.Event()

    def handle(job: Message) -> None:
        results[job.id] = square(job)
        if len(results) == numbers:
            done.set()

    worker = Worker(handle, "squares", threads=THREADS, retry_delay=0.05, port=port)
    threading.Thread(target=lambda: (done.wait(), worker.stop()), daemon=True).start()
    worker.run()  # in a program of its own: until SIGTERM or Ctrl-C
    return sum(results.values())


def the_plain_way(port: int) -> int:
    """The same by hand: auto_ack=False, and each thread settles what it was given."""
    client = SQClient(queue="squares", port=port, auto_ack=False, retry_delay=0.05)

    def handle(job: Message) -> int:
        try:
            result = square(job)
        except Reject as error:
            job.dead_letter(str(error))
        except RuntimeError:
            job.requeue()
        else:
            job.ack()
            return result
        return 0

    # `consume` sends no more than `prefetch` jobs ahead, so no more than these wait for a thread.
    with client, ThreadPoolExecutor(THREADS) as pool:
        return sum(pool.map(handle, client.consume(prefetch=THREADS, timeout=0.5)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Squares of 0 to 99, by four threads.")
    parser.add_argument("--port", type=int, default=1234)
    port = parser.parse_args().port
    with SQClient(queue="squares", port=port) as client:
        for way in "worker", "plain":
            client.enq("one hundred")
            client.enq_many(str(number) for number in range(100))
            total = with_a_worker(port, 100) if way == "worker" else the_plain_way(port)
            dead = client.peek(queue="squares.dead").decode()
            print(f"{way}: {total}, rejected: {dead}")
            client.purge(queue="squares.dead")


if __name__ == "__main__":
    main()
