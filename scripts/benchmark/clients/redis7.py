"""Redis 7 by redis-py: as streams with a consumer group, and as lists with a list of what is held.

Answers are read by redis-py itself, which is what ``pip install redis`` gives, or by hiredis, an extra in C.
"""

from __future__ import annotations

import secrets
from typing import Any

import redis
from redis._parsers import _RESP2Parser

from benchmark.clients.base import Client

KEY, GROUP, FIELD = "bench", "workers", b"body"


class StreamsClient(Client):
    """XADD; XREADGROUP and XACK. The blocking read and the ack are two round trips; batches are pipelined."""

    parser: Any = _RESP2Parser

    def __init__(self, port: int) -> None:
        self._port = port
        # redis-py answers in dictionaries or in lists, as its protocol version is; this one keeps lists.
        pool = redis.ConnectionPool(port=port, protocol=2, parser_class=self.parser)
        self._redis: Any = redis.Redis(connection_pool=pool)
        self._name = secrets.token_hex(4)
        self._make_group()

    def _make_group(self) -> None:
        try:
            self._redis.xgroup_create(KEY, GROUP, id="0", mkstream=True)
        except redis.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise

    def enq(self, body: bytes) -> None:
        self._redis.xadd(KEY, {FIELD: body})

    def _read(self, count: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        answer = self._redis.xreadgroup(GROUP, self._name, {KEY: ">"}, count=count, block=0)
        found: list[tuple[bytes, dict[bytes, bytes]]] = answer[0][1]
        return found

    def deq(self) -> bytes:
        [(message_id, fields)] = self._read(1)
        self._redis.xack(KEY, GROUP, message_id)
        return fields[FIELD]

    def enq_batch(self, bodies: list[bytes]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for body in bodies:
            pipeline.xadd(KEY, {FIELD: body})
        pipeline.execute()

    def deq_batches(self, number: int, prefetch: int) -> None:
        left = number
        while left:
            messages = self._read(min(left, prefetch))
            for _, fields in messages:
                _ = fields[FIELD]  # every system's consumer gets at each body
            self._redis.xack(KEY, GROUP, *(message_id for message_id, _ in messages))
            left -= len(messages)

    def clear(self) -> None:
        self._redis.delete(KEY)
        self._make_group()

    def close(self) -> None:
        self._redis.close()


class HiredisStreamsClient(StreamsClient):
    """The same with hiredis."""

    parser = redis.connection.DefaultParser


class ListsClient(Client):
    """RPUSH; BLMOVE to a list of what is held and LREM as the ack, the pattern of Redis' own documentation."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._redis: Any = redis.Redis(port=port, protocol=2)
        self._held = f"held-{secrets.token_hex(4)}"

    def enq(self, body: bytes) -> None:
        self._redis.rpush(KEY, body)

    def deq(self) -> bytes:
        body: bytes = self._redis.blmove(KEY, self._held, 0, "LEFT", "RIGHT")
        self._redis.lrem(self._held, 1, body)
        return body

    def enq_batch(self, bodies: list[bytes]) -> None:
        self._redis.rpush(KEY, *bodies)

    def deq_batches(self, number: int, prefetch: int) -> None:
        left = number
        while left:
            pipeline = self._redis.pipeline(transaction=False)
            for _ in range(min(left, prefetch)):
                pipeline.lmove(KEY, self._held, "LEFT", "RIGHT")
            got = sum(body is not None for body in pipeline.execute())
            self._redis.delete(self._held)
            left -= got

    def clear(self) -> None:
        self._redis.delete(KEY, self._held)

    def close(self) -> None:
        self._redis.close()
