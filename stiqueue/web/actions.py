"""The pages that change something. Each says first what it will do; the server checks the rights of who asks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from stiqueue.aio import AsyncSQClient
from stiqueue.client.base import session_of
from stiqueue.client.enqueue import HAND_OVER_OPTIONS, batch_of, enq_batch
from stiqueue.errors import StiQueueError
from stiqueue.limits import queue_name, suffixed
from stiqueue.message import DEAD_SUFFIX, Receipt
from stiqueue.web.access import LogInNeeded
from stiqueue.web.addresses import counts_of, queue_in
from stiqueue.web.console import Console, Visit, field_of
from stiqueue.web.forms import body_of, fields_of, options_of, text_of
from stiqueue.web.rendering import queue_path
from stiqueue.web.units import number

PATIENCE_SECONDS = 3.0
"""How long a page waits for an action; a longer one goes on, and the numbers show how far it is."""

LOGGER = logging.getLogger("stiqueue.web")


class Actions:
    """Answers forms."""

    def __init__(self, console: Console) -> None:
        """Act for `console`."""
        self._console = console
        self._under_way: set[asyncio.Task[str]] = set()

    async def choose(self, request: Request) -> Response:
        """Go to the form of a queue that was typed."""
        return self._console.go(queue_path(queue_name(request.query_params.get("queue", "").strip()), "enqueue"))

    async def enqueue(self, request: Request) -> Response:
        """Enqueue a message."""
        visit = await self._console.enter(request)
        queue = queue_in(request)
        if request.method != "POST":
            return self._console.page("enqueue.html", request, visit, queue=queue, fields={}, problem="")
        fields = await fields_of(request)
        options: dict[str, Any] = {}
        try:
            body = body_of(text_of(fields, "body"), field_of(fields, "form"))
            options = options_of(fields)
            receipt = await _enqueue(visit.link.client, body, options | {"queue": queue})
        except StiQueueError as error:
            values = {name: values[0] for name, values in fields.items()}
            return self._console.page(
                "enqueue.html", request, visit, 400, queue=queue, fields=values, problem=str(error)
            )
        state = "delayed" if options.get("delay") else "ready"
        said = f"Enqueued message {receipt.first_id} in {queue}."
        if receipt.duplicate:
            names = " or ".join(name.replace("_", " ") for name in ("unique_key", "request_id") if name in options)
            said = (
                f"Nothing was enqueued: message {receipt.first_id} was enqueued in {queue} before, with this {names}."
            )
        return self._console.go(queue_path(queue, tab=state), said, is_good=not receipt.duplicate)

    async def purge(self, request: Request) -> Response:
        """Drop the ready messages of a queue, once its name was typed."""
        visit = await self._console.enter(request)
        queue = queue_in(request)
        await visit.watch.look()
        problem = ""
        if request.method == "POST":
            if field_of(await fields_of(request), "name").strip() == queue:

                async def purge() -> str:
                    return f"Dropped {number(await visit.link.client.purge(queue=queue))} messages of {queue}."

                return await self._do(visit, f"Purging {queue}", purge, queue_path(queue))
            problem = f"Type {queue} to confirm."
        return self._console.page(
            "purge.html",
            request,
            visit,
            400 if problem else 200,
            queue=queue,
            counts=counts_of(visit, queue),
            problem=problem,
        )

    async def redrive(self, request: Request) -> Response:
        """Move the dead letters of a queue back to where they came from."""
        visit = await self._console.enter(request)
        queue = queue_in(request)
        await visit.watch.look()
        if request.method == "POST":

            async def redrive() -> str:
                return f"Moved {number(await visit.link.client.redrive(queue=queue))} dead letters of {queue} back."

            return await self._do(visit, f"Redriving {queue}", redrive, queue_path(queue))
        dead = counts_of(visit, suffixed(queue, DEAD_SUFFIX))
        return self._console.page("redrive.html", request, visit, queue=queue, dead=dead)

    async def _do(self, visit: Visit, what: str, work: Callable[[], Coroutine[Any, Any, str]], path: str) -> Response:
        """Do something that may take long, and go to `path`, which shows what came of it."""
        task = asyncio.create_task(work(), name="stiqueue-web-action")
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        if visit.session is not None:
            visit.session.under_way.add(task)
            task.add_done_callback(visit.session.under_way.discard)
        done, _ = await asyncio.wait([task], timeout=PATIENCE_SECONDS)
        if not done:
            return self._console.go(path, f"{what} goes on; the numbers show how far it is. It ends if you log out.")
        if task.cancelled():
            raise LogInNeeded
        error = task.exception()
        if error is None:
            return self._console.go(path, task.result())
        if not isinstance(error, StiQueueError):
            raise error
        return self._console.go(path, f"{what} failed: {error}", is_good=False)

    def _ended(self, task: asyncio.Task[str]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            LOGGER.warning("%s", error)

    async def close(self) -> None:
        """End what is under way: what it has not done stays as it was."""
        for task in self._under_way:
            task.cancel()


async def _enqueue(client: AsyncSQClient, body: bytes, options: dict[str, Any]) -> Receipt:
    """Do as `enq` with these options, but return the server's whole answer: people are told that it was there."""
    batch = batch_of(session_of(client), [body], **HAND_OVER_OPTIONS | options)
    return await enq_batch(session_of(client), batch, client.timeout)
