"""How every page looks: accessible by axe-core, no wider than the window, dark and light, at a desk and on a phone.

With the name of a folder in the environment as WRITE_PICTURES, the pictures of the documentation are written there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ports import free_port
from support.waiting import until

from stiqueue import SQClient, SQServer
from web.browser import Browser
from web.console import Console

PAGES = {
    "overview": "/",
    "queue": "/queues/orders",
    "found": "/queues/orders?text=customer&header=tenant",
    "leased": "/queues/orders?tab=leased",
    "delayed": "/queues/reminders?tab=delayed",
    "dead": "/queues/mail?tab=dead",
    "message": "/queues/orders/messages/40",
    "dead-letter": "/queues/mail.dead/messages/1",
    "leases": "/leases",
    "alerts": "/alerts",
    "enqueue": "/queues/orders/enqueue",
    "purge": "/queues/orders/purge",
    "redrive": "/queues/mail/redrive",
    "edit": "/queues/orders/messages/40/edit",
    "drop": "/queues/orders/messages/40/drop",
    "reschedule": "/queues/orders/messages/40/reschedule",
    "pause": "/queues/orders/pause",
    "settings": "/queues/orders/settings",
    "gone": "/queues/orders/messages/9999",
    "problem": "/queues/a%20b",
}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PICTURES = {
    "overview": ("/", 400),
    "queue": ("/queues/payments", 660),
    "dead": ("/queues/mail?tab=dead", 760),
    "message": ("/queues/orders/messages/40", 460),
}
"""Those of the documentation: page and height."""


class Shop:
    """A server with a shop's queues, on which producers and consumers are at work until it is closed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._over = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._produce, self._consume)]

    def open(self) -> None:
        with SQClient(port=self.port) as client:
            for number in range(140):
                client.enq(
                    f'{{"order": {1_000 + number}, "customer": "customer-{number % 7}", "total": {number * 7.5},'
                    f' "items": [{{"sku": "A-{number}", "count": {number % 4 + 1}}}]}}',
                    queue="orders",
                    headers={"tenant": f"t{number % 5}", "traceparent": TRACE},
                )
            for number in range(8):
                client.enq(
                    f"Dear reader {number}, your invoice", queue="mail", headers={"to": f"u{number}@example.org"}
                )
            client.enq_many([b"event"] * 3_000, queue="events")
            for number in range(12):
                client.enq(f"remind {number}", queue="reminders", delay=3_600 + number * 600)
        with SQClient(port=self.port, auto_ack=False, consumer="mailer-1", queue="mail") as client:
            for number in range(6):
                message = client.deq(timeout=5.0)
                assert message is not None
                message.dead_letter(f"550 mailbox unavailable: u{number}@example.org")
        self._holder = SQClient(port=self.port, auto_ack=False, consumer="billing-2@host-7", queue="orders")
        self._held = self._holder.deq(timeout=5.0)
        for thread in self._threads:
            thread.start()
        with SQClient(port=self.port) as client:
            until(lambda: client.counts(queue="payments").acked > 3)  # with their pipes, which have threads

    def _produce(self) -> None:
        with SQClient(port=self.port) as client:
            number = 0
            while not self._over.wait(0.008 if number % 100 < 60 else 0.06):
                client.enq(f'{{"payment": {number}, "amount": {number % 90 + 9.5}}}', queue="payments")
                number += 1

    def _consume(self) -> None:
        with SQClient(port=self.port, consumer="payments-1", queue="payments") as client:
            while not self._over.wait(0.02):
                client.deq(timeout=0.2)

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        assert self._held is not None
        self._held.requeue(0.0)
        self._holder.close()


@pytest.fixture(scope="module")
def shop() -> Iterator[Console]:
    """A console of a shop."""
    with SQServer(port=free_port()) as server, Console(server.port) as console:
        shop = Shop(server.port)
        shop.open()
        yield console
        shop.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_for_everybody(browser: Browser, shop: Console, axe: str, name: str) -> None:
    for width, height in ((1280, 800), (390, 844)):
        for theme in ("light", "dark"):
            browser.look(theme, width, height)
            if theme == "light":  # it changes without being loaded again
                browser.go(shop.url + PAGES[name])
                browser.find("footer")
            assert browser.violations(axe) == [], (theme, width)
            assert browser.overflow() <= 0, (theme, width)


def test_the_log_in_is_for_everybody(browser: Browser, axe: str, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"{'t' * 20} peek\n")
    with SQServer(port=free_port(), tokens=str(tokens)) as server, Console(server.port) as console:
        for theme in ("light", "dark"):
            browser.look(theme, 390, 844)
            browser.go(console.url)
            browser.type("Token", "wrong", enter=True)
            browser.sees("does not know")
            assert (browser.violations(axe), browser.overflow()) == ([], 0)


def test_pages_are_read_by_the_keyboard(browser: Browser, shop: Console) -> None:
    browser.go(shop.url)
    browser.sees("live", "#status")
    browser.keys("TAB", "ENTER")  # skips what is on every page
    assert browser.driver.switch_to.active_element.get_attribute("id") == "main"
    browser.keys("TAB")
    assert browser.driver.switch_to.active_element.get_attribute("id") == "filter-text"
    seen = set()
    for _ in range(60):
        browser.keys("TAB")
        seen.add(browser.driver.execute_script("return document.activeElement.innerText"))
    assert {"Ready", "mail", "orders", "payments"} <= seen


def test_a_person_chooses_dark_or_light(browser: Browser, shop: Console) -> None:
    browser.go(shop.url)

    def ground() -> str:
        return str(browser.driver.execute_script("return getComputedStyle(document.body).backgroundColor"))

    assert ground() == "rgb(255, 255, 255)"
    browser.click("Dark")
    browser.wait(lambda: ground() == "rgb(20, 23, 26)")
    browser.go(f"{shop.url}/alerts")
    assert ground() == "rgb(20, 23, 26)"
    browser.click("Light")
    browser.wait(lambda: ground() == "rgb(255, 255, 255)")
    browser.look("dark")
    browser.go(shop.url)
    assert ground() == "rgb(255, 255, 255)"


def test_pictures_are_taken(browser: Browser, shop: Console, tmp_path: Path) -> None:
    folder = Path(os.environ.get("WRITE_PICTURES") or tmp_path)
    browser.look("light")
    browser.go(shop.url)

    def has_lines() -> bool:
        """Whether the trend of a busy queue has enough samples to look like one."""
        lines = browser.all("#row-payments polyline.in")
        return bool(lines) and lines[0].get_attribute("points").count(",") >= 12

    browser.wait(has_lines)
    for theme in ("light", "dark"):
        for name, (page, height) in PICTURES.items():
            browser.look(theme, 1180, height)
            browser.go(shop.url + page)
            browser.sees("live", "#status")
            browser.picture(folder / f"console-{name}{'-dark' if theme == 'dark' else ''}.png")
    assert len(list(folder.glob("console-*.png"))) >= 2 * len(PICTURES)
