"""The pages about one message."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response

from stiqueue.v1 import queue_pb2 as pb
from stiqueue.web import bodies
from stiqueue.web.addresses import TABS, id_of, priority_of, queue_in
from stiqueue.web.blocking import blockers
from stiqueue.web.console import Console, Visit
from stiqueue.web.link import Spot
from stiqueue.web.pages import Pager
from stiqueue.web.search import MOST_BYTES, MOST_LOOKED_AT


class MessageScreens:
    """Answers requests for one message."""

    def __init__(self, console: Console) -> None:
        """Show pages of `console`."""
        self._console = console

    async def message(self, request: Request) -> Response:
        """Show one message."""
        visit = await self._console.enter(request)
        queue, message_id = queue_in(request), id_of(request.path_params["id"])
        found = await find(visit, queue, message_id, visit.ask("state"))
        if found is None:
            return self._console.page("gone.html", request, visit, 404, queue=queue, id=message_id)
        message = found.message
        return self._console.page(
            "message.html",
            request,
            visit,
            queue=queue,
            found=found,
            message=message,
            blocker=(await blockers(visit.link, queue, [found])).get(message.key),
            written=bodies.write(message.body, visit.ask("as")),
            origin=bodies.origin(message.headers),
            trace_id=bodies.trace_id(message.headers),
        )

    async def body(self, request: Request) -> Response:
        """Send the body of a message, to be saved: never as anything that a browser would show."""
        visit = await self._console.enter(request)
        queue, message_id = queue_in(request), id_of(request.path_params["id"])
        found = await find(visit, queue, message_id, visit.ask("state"))
        if found is None:
            return self._console.page("gone.html", request, visit, 404, queue=queue, id=message_id)
        return Response(
            found.message.body,
            media_type="application/octet-stream",
            headers={
                "content-disposition": f'attachment; filename="{queue.replace(".", "_")}-{message_id}.bin"',
                "content-security-policy": "default-src 'none'; sandbox",
            },
        )


async def find(visit: Visit, queue: str, message_id: int, state: str = "") -> pb.PeekedMessage | None:
    """Return a message of a queue; None if it is gone, or delayed behind more than a search looks at."""
    likely = TABS.get(state)
    states = (pb.MESSAGE_STATE_LEASED, pb.MESSAGE_STATE_READY, pb.MESSAGE_STATE_DELAYED)
    for each in sorted(states, key=lambda other: other != likely):
        async for message in _candidates(visit, queue, each, message_id):
            if message.message.id == message_id:
                return message
    return None


async def _candidates(visit: Visit, queue: str, state: int, message_id: int) -> AsyncIterator[pb.PeekedMessage]:
    """Iterate over messages among which one of that state and id is."""
    if state == pb.MESSAGE_STATE_DELAYED:
        size = 0  # they are not in the order of ids
        async for message in visit.link.peek_all(queue, state, Spot(0), MOST_LOOKED_AT):
            yield message
            size += message.ByteSize()
            if size > MOST_BYTES:
                break
        return
    below = max(0, message_id - 1)
    linked = priority_of(visit.ask("priority") or "0")
    if state == pb.MESSAGE_STATE_READY:
        for message in (await visit.link.peek(queue, state, Spot(below, linked), 1)).messages:
            yield message
    for lane in await Pager(visit.link, queue, state, 0).lanes():
        for message in (await visit.link.peek(queue, state, Spot(below, lane), 1)).messages:
            yield message
