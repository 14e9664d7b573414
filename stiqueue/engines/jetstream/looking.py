"""Counts and peeks: counts from the cluster and all gateways, messages by direct get."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from nats.aio.msg import Msg

from stiqueue.engines.jetstream.answers import is_status, unavailable
from stiqueue.engines.jetstream.cluster import CALL_SECONDS, Cluster
from stiqueue.engines.jetstream.envelope import due_ms, open_message, time_ms
from stiqueue.engines.jetstream.gateways import Gateways, Held, Holding
from stiqueue.engines.jetstream.names import Names
from stiqueue.engines.jetstream.shared_settings import SharedSettings, wall_ms
from stiqueue.engines.jetstream.streams import Streams
from stiqueue.message import Counts, PeekQuery, State
from stiqueue.rules.entry import Entry, Peeked

CHUNK_MESSAGES = 1_000
CHUNK_BYTES = 4 << 20
SEARCHED = 1_000
"""Most messages to search for the oldest ready one."""


class Looking:
    """Answers `Cnt` and `Peek`."""

    def __init__(
        self, cluster: Cluster, names: Names, streams: Streams, settings: SharedSettings, gateways: Gateways
    ) -> None:
        """Look into `streams`."""
        self._cluster = cluster
        self._names = names
        self._streams = streams
        self._settings = settings
        self._gateways = gateways

    # -- counting -----------------------------------------------------------------------------------------------------

    async def counts(self, queues: Sequence[str]) -> list[Counts]:
        """See `stiqueue.rules.engine.Engine.counts`."""
        if queues:
            held = await self._gateways.held(list(dict.fromkeys(queues)))
            return await asyncio.gather(*(self._count(queue, held.get(queue, Held())) for queue in queues))
        held = await self._gateways.held(None)
        names = sorted({*await self._streams.list_queues(), *(name for name, each in held.items() if each.consumers)})
        found = await self.counts(names) if names else []
        return [each for each in found if each.ready or each.leased or each.delayed or each.consumers]

    async def _count(self, queue: str, held: Held) -> Counts:
        info = await self._streams.find(queue)
        pause = self._settings.pause_of(queue)
        paused_ms = max(1, pause.until_ms - wall_ms()) if pause and pause.until_ms else 0
        if info is None:
            return Counts(queue, consumers=held.consumers, paused=pause is not None, paused_ms=paused_ms)
        state = info["state"]
        subjects = state.get("subjects") or {}
        stored, request_ids = (subjects.get(each(queue), 0) for each in (self._names.ready, self._names.probe))
        leased, postponed = len(held.leases), len(held.delayed)
        ready = max(0, stored - leased - postponed)
        delayed = max(0, state["messages"] - stored - request_ids) + postponed
        age = await self._oldest_ready_age(queue, state, stored, held) if ready else 0
        return Counts(
            queue,
            ready=ready,
            leased=leased,
            delayed=delayed,
            consumers=held.consumers,
            bytes=state["bytes"] if stored or delayed else 0,
            oldest_ready_age_ms=age,
            oldest_lease_age_ms=max((each.age_ms for each in held.leases), default=0),
            paused=pause is not None,
            paused_ms=paused_ms,
            **held.totals,
        )

    async def _oldest_ready_age(self, queue: str, state: dict[str, Any], stored: int, held: Held) -> int:
        taken = {each.id for each in held.leases} | held.delayed.keys()
        now_ms = int(time.time() * 1000)
        if state["first_seq"] not in taken and state["messages"] == stored:
            return max(0, now_ms - time_ms(state["first_ts"]))
        searched = 0
        async for chunk in self._messages(queue, self._names.ready(queue), 0, most=len(taken) + 1):
            for entry, _ in chunk:
                if entry.id not in taken:
                    return max(0, now_ms - entry.properties.enqueue_time_ms)
            searched += len(chunk)
            if searched >= SEARCHED:
                break
        return 0

    # -- peeking ------------------------------------------------------------------------------------------------------

    async def peek(self, query: PeekQuery) -> AsyncIterator[list[Peeked]]:
        """See `stiqueue.rules.engine.Engine.peek`."""
        if await self._streams.find(query.queue) is None:
            return
        held = (await self._gateways.held([query.queue]))[query.queue]
        left = query.limit or 1 << 62
        for state in (State.LEASED, State.READY, State.DELAYED):
            if left and query.state in (state, State.ALL):
                async for chunk in self._in_state(state, query, held):
                    yield chunk[:left]
                    left -= len(chunk[:left])
                    if not left:
                        break

    async def _in_state(self, state: State, query: PeekQuery, held: Held) -> AsyncIterator[list[Peeked]]:
        ready = self._names.ready(query.queue)
        after_id = query.after_id_of(0)  # the only priority here
        if after_id is None:
            return
        leases = {each.id: each for each in held.leases}
        now_ms = int(time.time() * 1000)
        if state is State.READY:
            taken = leases.keys() | held.delayed.keys()
            async for chunk in self._messages(query.queue, ready, after_id):
                shown = [
                    Peeked(entry, state, "", max(0, now_ms - entry.properties.enqueue_time_ms))
                    for entry, _ in chunk
                    if entry.id not in taken
                ]
                if shown:
                    yield shown
        elif state is State.LEASED:
            async for chunk in self._messages(query.queue, ready, after_id, set(leases)):
                yield [_leased(entry, leases[entry.id], now_ms) for entry, _ in chunk]
        else:
            delayed: list[Peeked] = []
            async for chunk in self._messages(query.queue, ready, after_id, set(held.delayed)):
                delayed += [_delayed(entry, now_ms + held.delayed[entry.id], now_ms) for entry, _ in chunk]
            async for chunk in self._messages(query.queue, self._names.later(query.queue), after_id):
                delayed += [_delayed(entry, due_ms(headers), now_ms) for entry, headers in chunk]
            if delayed:
                yield sorted(delayed, key=lambda peeked: (peeked.ready_time_ms, peeked.entry.id))

    async def _messages(
        self, queue: str, subject: str, after_id: int, only: set[int] | None = None, most: int = CHUNK_MESSAGES
    ) -> AsyncIterator[list[tuple[Entry, dict[str, str]]]]:
        """Read stored messages in the order of ids, in chunks of up to `most`; with `only`, just these ids."""
        subject_of_get = f"$JS.API.DIRECT.GET.{self._names.stream(queue)}"
        if only is not None:
            ids = sorted(each for each in only if each > after_id)
            for begin in range(0, len(ids), CHUNK_MESSAGES):
                requests = [{"seq": each} for each in ids[begin : begin + CHUNK_MESSAGES]]
                found = [each for each in await self._get(subject_of_get, requests) if each[0].id in only]
                if found:
                    yield found
            return
        while True:
            request = {
                "seq": after_id + 1,
                "batch": min(most, CHUNK_MESSAGES),
                "max_bytes": CHUNK_BYTES,
                "next_by_subj": subject,
            }
            found = await self._get(subject_of_get, [request])
            if not found:
                return
            yield found
            after_id = found[-1][0].id

    async def _get(self, subject: str, requests: list[dict[str, Any]]) -> list[tuple[Entry, dict[str, str]]]:
        """Send requests for messages; return all messages found, the oldest first.

        Raises:
            Unavailable: an answer is missing.
        """
        found: list[tuple[Entry, dict[str, str]]] = []
        open_requests = len(requests)
        done = asyncio.get_running_loop().create_future()

        async def heard(message: Msg) -> None:
            nonlocal open_requests
            headers = message.headers or {}
            if is_status(message, "204", "404", "408", "413", "503"):
                open_requests -= 1
            else:
                stored_ms = time_ms(headers["Nats-Time-Stamp"])
                number = int(headers["Nats-Sequence"])
                found.append((open_message(number, 0, stored_ms, message.data, headers).entry, headers))
                open_requests -= "Nats-Num-Pending" not in headers
            if open_requests <= 0 and not done.done():
                done.set_result(None)

        inbox = self._cluster.new_inbox()
        interest = await self._cluster.subscribe(inbox, heard)
        try:
            for request in requests:
                await self._cluster.send(subject, json.dumps(request).encode(), inbox)
            await asyncio.wait_for(done, CALL_SECONDS)
        except asyncio.TimeoutError as error:
            raise unavailable(error) from error
        finally:
            await interest.unsubscribe()
        return sorted(found, key=lambda each: each[0].id)


def _leased(entry: Entry, lease: Holding, now_ms: int) -> Peeked:
    until = 0 if lease.left_ms is None else now_ms + lease.left_ms
    return Peeked(entry._replace(attempt=lease.attempt), State.LEASED, lease.consumer, lease.age_ms, until)


def _delayed(entry: Entry, due: int, now_ms: int) -> Peeked:
    return Peeked(entry, State.DELAYED, "", max(0, now_ms - entry.properties.enqueue_time_ms), due)
