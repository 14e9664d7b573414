"""beanstalkd by greenstalk."""

from __future__ import annotations

import greenstalk

from benchmark.clients.base import Client


class BeanstalkClient(Client):
    """PUT; RESERVE and DELETE, two round trips. The protocol has no batches; each thread has its own connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._client = greenstalk.Client(("127.0.0.1", port), encoding=None)

    def enq(self, body: bytes) -> None:
        self._client.put(body)

    def deq(self) -> bytes:
        job = self._client.reserve()
        self._client.delete(job)
        assert isinstance(job.body, bytes)
        return job.body

    def for_thread(self) -> Client:
        return BeanstalkClient(self._port)

    def clear(self) -> None:
        try:
            while True:
                self._client.delete(self._client.reserve(timeout=0))
        except greenstalk.TimedOutError:
            pass

    def close(self) -> None:
        self._client.close()
