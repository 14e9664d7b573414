"""The pages that show something: overview, a queue, a message, leases, alerts."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from stiqueue.errors import Unavailable
from stiqueue.limits import suffixed
from stiqueue.message import DEAD_SUFFIX
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.web.addresses import TABS, counts_of, id_of, priority_of, queue_in
from stiqueue.web.blocking import blockers
from stiqueue.web.charts import Line, chart
from stiqueue.web.console import Console, Visit
from stiqueue.web.link import Spot
from stiqueue.web.overview import MOST_SHOWN, ORDERS, SHOWN, Overview, overview
from stiqueue.web.pages import Page, Pager
from stiqueue.web.rendering import queue_path, render
from stiqueue.web.search import Wanted, search
from stiqueue.web.streams import Live, Parts

MOST_TEXT = 200
"""Characters of a filter or of a text that is searched."""
LEASE_QUEUES = 40
"""Queues whose leases are shown together."""
LEASES_EACH = 50


@dataclass(frozen=True)
class Asked:
    """What a queue's page is asked to show."""

    queue: str
    tab: str
    newest: bool
    after: Spot
    """Show what follows; id 0: from the beginning."""
    before: Spot
    """Show what comes before; id 0: not asked for."""
    wanted: Wanted

    @property
    def looked_at(self) -> str:
        """The queue whose messages the tab has."""
        return suffixed(self.queue, DEAD_SUFFIX) if self.tab == "dead" else self.queue


class Screens:
    """Answers requests for pages."""

    def __init__(self, console: Console) -> None:
        """Show pages of `console`."""
        self._console = console
        self._live = Live(console)

    # -- overview -----------------------------------------------------------------------------------------------------

    async def overview(self, request: Request) -> Response:
        """Show all queues."""
        visit = await self._console.enter(request)
        await visit.watch.look()
        shown = _overview(visit)
        query = {"filter": _text(visit, "filter"), "sort": _sort(visit), "shown": str(_shown(visit))}
        return self._console.page(
            "overview.html", request, visit, overview=shown, query=query, live=f"/live?{urlencode(query)}"
        )

    async def overview_live(self, request: Request) -> Response:
        """Send what changes on the overview."""
        visit = await self._console.enter(request)

        def parts() -> tuple[Parts, Parts | None]:
            shown = _overview(visit)
            rows = {f"row-{row.queue}": render("_row.html", row=row) for row in shown.rows}
            return {"totals": render("_totals.html", overview=shown, filter=_text(visit, "filter"))}, rows

        return self._live.answer(visit, parts)

    # -- a queue ------------------------------------------------------------------------------------------------------

    async def queue(self, request: Request) -> Response:
        """Show one queue and a page of its messages."""
        visit = await self._console.enter(request)
        asked = _asked(visit)
        await visit.watch.look()
        problem, page, found = "", Page(), None
        blocking: dict[str, pb.PeekedMessage] = {}
        try:
            if asked.wanted.is_empty:
                page = await self._page(visit, asked)
            else:
                state = TABS[asked.tab]
                found = await search(visit.link, asked.looked_at, state, asked.wanted, asked.after)
                page = Page(found.messages)
            blocking = await blockers(visit.link, asked.looked_at, page.messages)
        except Unavailable as error:
            problem = str(error)
        return self._console.page(
            "queue.html",
            request,
            visit,
            asked=asked,
            counts=counts_of(visit, asked.queue),
            parts=_queue_parts(visit, asked.queue, asked.tab),
            page=page,
            blocking=blocking,
            found=found,
            total=_total(visit, asked),
            problem=problem,
            live=queue_path(asked.queue, "live", tab=asked.tab),
        )

    async def queue_live(self, request: Request) -> Response:
        """Send what changes on a queue's page: its numbers and charts, but not its messages."""
        visit = await self._console.enter(request)
        queue = queue_in(request)
        return self._live.answer(visit, lambda: (_queue_parts(visit, queue, visit.ask("tab")), None))

    async def _page(self, visit: Visit, asked: Asked) -> Page:
        pager = Pager(visit.link, asked.looked_at, TABS[asked.tab], _total(visit, asked), asked.newest)
        if asked.after.id:
            return await pager.after(asked.after)
        if asked.before.id:
            return await pager.before(asked.before)
        return await pager.start()

    # -- leases and alerts --------------------------------------------------------------------------------------------

    async def leases(self, request: Request) -> Response:
        """Show who holds what, in all queues: those first whose leases are the oldest."""
        visit = await self._console.enter(request)
        await visit.watch.look()
        busy = [each for each in visit.watch.counts.values() if each.leased or each.consumers]
        busy.sort(key=lambda each: (-each.oldest_lease_age_ms, each.queue))
        held: list[tuple[pb.QueueCounts, list[pb.PeekedMessage]]] = []
        problem = ""
        try:
            for each in busy[:LEASE_QUEUES]:
                found: list[pb.PeekedMessage] = []
                if each.leased:
                    looked = await visit.link.peek(each.queue, pb.MESSAGE_STATE_LEASED, Spot(0), LEASES_EACH)
                    found = sorted(looked.messages, key=lambda m: -m.state_age_ms)
                held.append((each, found))
        except Unavailable as error:
            problem = str(error)
        return self._console.page(
            "leases.html", request, visit, held=held, busy=len(busy), problem=problem, live="/status/live"
        )

    async def alerts(self, request: Request) -> Response:
        """Show what needs a person."""
        visit = await self._console.enter(request)
        await visit.watch.look()
        return self._console.page("alerts.html", request, visit, live="/alerts/live")

    async def alerts_live(self, request: Request) -> Response:
        """Send the alerts when they change."""
        visit = await self._console.enter(request)
        return self._live.answer(visit, lambda: ({"alerts": render("_alerts.html", watch=visit.watch)}, None))

    async def status_live(self, request: Request) -> Response:
        """Send only what every page has."""
        visit = await self._console.enter(request)
        return self._live.answer(visit, lambda: ({}, None))


def _overview(visit: Visit) -> Overview:
    watch = visit.watch
    return overview(watch.counts, watch.history, watch.alerts, _text(visit, "filter"), _sort(visit), _shown(visit))


def _queue_parts(visit: Visit, queue: str, tab: str) -> Parts:
    watch = visit.watch
    trend, times = watch.history.trend(queue), watch.history.times
    return {
        "numbers": render(
            "_numbers.html",
            queue=queue,
            counts=counts_of(visit, queue),
            dead=counts_of(visit, suffixed(queue, DEAD_SUFFIX)),
            rates=trend.rates,
            alerts=[alert for alert in watch.alerts if alert.queue == queue],
        ),
        "tabs": render(
            "_tabs.html",
            queue=queue,
            tab=tab,
            counts=counts_of(visit, queue),
            dead=counts_of(visit, suffixed(queue, DEAD_SUFFIX)),
        ),
        "depth": chart(
            "Messages",
            [
                Line("ready", "ready", trend.ready),
                Line("leased", "leased", trend.leased),
                Line("delayed", "delayed", trend.delayed),
            ],
            times,
        ),
        "rates": chart(
            "Messages a second",
            [
                Line("in", "in", trend.enqueued),
                Line("acked", "acked", trend.acked),
                Line("given back", "back", trend.requeued),
            ],
            times,
            "/s",
        ),
    }


def _total(visit: Visit, asked: Asked) -> int:
    counts = counts_of(visit, asked.looked_at)
    return {"leased": counts.leased, "delayed": counts.delayed}.get(asked.tab, counts.ready)


def _asked(visit: Visit) -> Asked:
    tab = visit.ask("tab", "ready")
    priority = priority_of(visit.ask("priority") or "0")
    return Asked(
        queue=queue_in(visit.request),
        tab=tab if tab in TABS else "ready",
        newest=visit.ask("order") == "newest",
        after=Spot(id_of(visit.ask("after") or "0"), priority),
        before=Spot(id_of(visit.ask("before") or "0"), priority),
        wanted=Wanted(_text(visit, "text"), _text(visit, "header")),
    )


def _text(visit: Visit, name: str) -> str:
    return visit.ask(name)[:MOST_TEXT].strip()


def _sort(visit: Visit) -> str:
    order = visit.ask("sort", "trouble")
    return order if order in ORDERS else "trouble"


def _shown(visit: Visit) -> int:
    text = visit.ask("shown")
    return min(int(text), MOST_SHOWN) if text.isascii() and text.isdecimal() and len(text) < 6 and int(text) else SHOWN
