"""Actions on single messages, and on those that were selected on a page: by their ids, through `AsyncSQClient`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from stiqueue.errors import InvalidRequest, StiQueueError
from stiqueue.limits import dead_letter_queue
from stiqueue.message import DEAD_SUFFIX
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.web import bodies
from stiqueue.web.addresses import id_of, queue_in
from stiqueue.web.console import Console, Visit, field_of
from stiqueue.web.forms import Fields, body_of, fields_of, headers_of, seconds_of, text_of, whole_of
from stiqueue.web.message_screens import find
from stiqueue.web.rendering import queue_path
from stiqueue.web.units import number

GONE = "Message {} of {} is not there any more, so nothing was changed."


@dataclass(frozen=True)
class Deed:
    """Something that is done to messages."""

    title: str
    says: str
    """What it will do, with {what} for the messages and {queue} for their queue."""
    button: str
    asks: str = ""
    """The name of a field that it asks for; empty: none."""
    label: str = ""
    hint: str = ""
    is_grave: bool = False


DEEDS = {
    "drop": Deed(
        "Drop",
        "Drops {what} of {queue} for good. A message that a consumer holds by then stays.",
        "Drop",
        is_grave=True,
    ),
    "reschedule": Deed(
        "Reschedule",
        "Makes {what} of {queue} ready after a delay, at its old place and under the same id. Without a delay, "
        "consumers can have it now.",
        "Reschedule",
        "delay",
        "Delay",
        "such as 30s, 5m or 2h; empty: now",
    ),
    "bury": Deed(
        "Dead-letter",
        "Moves {what} of {queue} to its dead letters, from where it can be redriven.",
        "Dead-letter",
        "reason",
        "Reason",
        "kept with the dead letter",
    ),
    "redrive": Deed(
        "Redrive",
        "Moves {what} of {queue} back to the queue it came from, to its end and under a new id. Attempts begin at 1.",
        "Move back",
    ),
}
ON_SELECTED = ("drop", "redrive", "reschedule")

Done = Coroutine[Any, Any, str]


class Singles:
    """Answers forms about messages."""

    def __init__(self, console: Console) -> None:
        """Act for `console`."""
        self._console = console

    async def act(self, request: Request) -> Response:
        """Do one of the `DEEDS` to a message, once that is confirmed."""
        visit = await self._console.enter(request)
        queue, message_id = queue_in(request), id_of(request.path_params["id"])
        name = request.path_params["deed"]
        if name not in DEEDS:
            return self._console.page("gone.html", request, visit, 404, queue=queue, id=message_id)
        path = queue_path(queue, "messages", message_id, name)
        return await self._confirmed(visit, name, queue, [message_id], path, await fields_of(request))

    async def act_on_selected(self, request: Request) -> Response:
        """Do one of the `DEEDS` to the messages that were selected on a page, once that is confirmed."""
        visit = await self._console.enter(request)
        queue, fields = queue_in(request), await fields_of(request)
        ids = [id_of(text) for text in fields.get("id", [])]
        name = field_of(fields, "deed")
        if not ids:
            return self._console.go(_page_of(queue), "No message was selected.", is_good=False)
        if name not in ON_SELECTED:
            raise InvalidRequest("deed: nothing that can be done to several messages", "BAD_FORM")
        return await self._confirmed(visit, name, queue, ids, queue_path(queue, "selected"), fields)

    async def _confirmed(
        self, visit: Visit, name: str, queue: str, ids: list[int], path: str, fields: Fields
    ) -> Response:
        deed, problem = DEEDS[name], ""
        if visit.request.method == "POST" and field_of(fields, "confirmed"):
            try:
                said = await _ACTS[name](visit, queue, ids, field_of(fields, deed.asks).strip() if deed.asks else "")
                return self._console.go(_page_of(queue), said)
            except StiQueueError as error:
                problem = str(error)
        what = f"message {ids[0]}" if len(ids) == 1 else f"the {number(len(ids))} selected messages"
        return self._console.page(
            "confirm.html",
            visit.request,
            visit,
            400 if problem else 200,
            deed=deed,
            name=name,
            says=deed.says.format(what=what, queue=queue),
            queue=queue,
            back=_page_of(queue),
            ids=ids,
            action=path,
            given=field_of(fields, deed.asks) if deed.asks else "",
            problem=problem,
        )

    async def edit(self, request: Request) -> Response:
        """Enqueue a changed message in place of another."""
        visit = await self._console.enter(request)
        queue, message_id = queue_in(request), id_of(request.path_params["id"])
        found = await find(visit, queue, message_id, visit.ask("state"))
        if found is None:
            return self._console.page("gone.html", request, visit, 404, queue=queue, id=message_id)
        message, problem = found.message, ""
        # By the server's clock, which is not this machine's.
        left = found.ready_time_ms - message.enqueue_time_ms - found.state_age_ms
        delay = max(0, left) / 1000 if found.state == pb.MESSAGE_STATE_DELAYED else 0.0
        form = "text" if len(message.body) <= bodies.MOST_TEXT and bodies.is_plain(message.body) else "hex"
        kept = {
            "body": message.body.hex(" ") if form == "hex" else message.body.decode(),
            "form": form,
            "priority": str(message.priority),
            "headers": "\n".join(f"{name}: {value}" for name, value in sorted(message.headers.items())),
        }
        given = dict(kept)
        if request.method == "POST":
            fields = await fields_of(request)
            given |= {name: values[0] for name, values in fields.items()}
            try:
                return self._console.go(_page_of(queue), await _replace(visit, queue, message_id, fields, kept, delay))
            except StiQueueError as error:
                problem = str(error)
        return self._console.page(
            "edit.html",
            request,
            visit,
            400 if problem else 200,
            queue=queue,
            id=message_id,
            expires=bool(found.expire_time_ms),
            ready_time_ms=found.ready_time_ms if found.state == pb.MESSAGE_STATE_DELAYED else 0,
            fields=given,
            problem=problem,
        )


def _page_of(queue: str) -> str:
    """Return the page on which a queue's messages are: dead letters are on that of the queue they belong to."""
    if queue.endswith(DEAD_SUFFIX) and queue != DEAD_SUFFIX:
        return queue_path(queue.removesuffix(DEAD_SUFFIX), tab="dead")
    return queue_path(queue)


async def _drop(visit: Visit, queue: str, ids: list[int], _: str) -> str:
    dropped = await visit.link.client.cancel(*ids, queue=queue)
    return f"Dropped {_of(dropped, ids)} of {queue}."


async def _redrive(visit: Visit, queue: str, ids: list[int], _: str) -> str:
    if dead_letter_queue(queue) != queue:
        raise InvalidRequest(f"queue: {queue} has no dead letters; they are in {dead_letter_queue(queue)}", "BAD_FORM")
    moved = await visit.link.client.redrive(queue=queue.removesuffix(DEAD_SUFFIX), ids=ids)
    return f"Moved {_of(moved, ids)} of {queue} back."


async def _reschedule(visit: Visit, queue: str, ids: list[int], text: str) -> str:
    delay = seconds_of("delay", text) if text else 0.0
    moved = 0
    for each in ids:
        moved += await visit.link.client.reschedule(each, delay, queue=queue)
    return f"Rescheduled {_of(moved, ids)} of {queue}."


async def _bury(visit: Visit, queue: str, ids: list[int], reason: str) -> str:
    buried = 0
    for each in ids:
        message = await visit.link.client.take(each, queue=queue)
        if message is not None:
            buried += await message.dead_letter(reason)
    return f"Moved {_of(buried, ids)} of {queue} to its dead letters."


_ACTS: dict[str, Callable[[Visit, str, list[int], str], Done]] = {
    "drop": _drop,
    "redrive": _redrive,
    "reschedule": _reschedule,
    "bury": _bury,
}


async def _replace(
    visit: Visit, queue: str, message_id: int, fields: Fields, kept: Mapping[str, str], delay_left: float
) -> str:
    """Replace a message; a field that comes back as it was shown keeps what it showed, to the byte."""
    body, form, headers = text_of(fields, "body"), field_of(fields, "form"), text_of(fields, "headers")
    priority, delay, ttl = (field_of(fields, name).strip() for name in ("priority", "delay", "ttl"))
    new_id = await visit.link.client.replace(
        message_id,
        None if (body, form) == (kept["body"], kept["form"]) else body_of(body, form),
        queue=queue,
        priority=whole_of("priority", priority) if priority else 0,
        delay=seconds_of("delay", delay) if delay else delay_left,
        ttl=seconds_of("ttl", ttl) if ttl else None,
        headers=None if headers == kept["headers"] else headers_of(headers),
    )
    if new_id is None:
        raise InvalidRequest(GONE.format(message_id, queue), "BAD_FORM")
    return f"Message {new_id} of {queue} has taken the place of message {message_id}."


def _of(done: int, ids: list[int]) -> str:
    """Return how many of the messages it was."""
    if done == len(ids):
        return f"message {ids[0]}" if done == 1 else f"{number(done)} messages"
    return f"{number(done)} of {number(len(ids))} messages (the others are gone, or a consumer holds them),"
