"""A browser as a person uses it: goes to pages, clicks what has a text, types, and waits for what appears."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import (
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from support.waiting import PATIENCE

PASSING = (NoSuchElementException, StaleElementReferenceException)
EXPECTED = re.compile(r"Failed to load resource|net::ERR_|favicon")
"""In the browser's log: what a server that is away, or a page that is refused, leaves there."""
CLICKABLE = """
const seen = [...document.querySelectorAll("a, button, label")].filter((each) => each.checkVisibility());
const texts = seen.map((each) => each.innerText.trim());
const place = texts.indexOf(arguments[0]);
return seen[place >= 0 ? place : texts.findIndex((text) => text.startsWith(arguments[0]))] ?? null;
"""
"""Finds what a person would click: asking the browser for the text of one element after another takes seconds."""


class Browser:
    """One window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def begin(self) -> None:
        """Forget who was logged in."""
        self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        self.look("light")
        self.driver.get_log("browser")  # type: ignore[no-untyped-call]

    def end(self) -> None:
        """Close all windows but one; fail on errors of scripts, and on what the policy of a page has stopped."""
        first, *others = self.driver.window_handles
        for handle in others:
            self.driver.switch_to.window(handle)
            self.driver.close()
        self.driver.switch_to.window(first)
        self.driver.get("about:blank")
        log = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        grave = [entry["message"] for entry in log if entry["level"] in ("SEVERE", "WARNING")]
        assert [message for message in grave if not EXPECTED.search(message)] == []

    def look(self, theme: str, width: int = 1280, height: int = 800) -> None:
        """Prefer a `theme`, and be a phone where the window is narrow."""
        shape = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def go(self, url: str) -> None:
        self.driver.get(url)

    def new_window(self) -> None:
        self.driver.switch_to.new_window("window")

    def wait(self, what: Callable[[], Any]) -> Any:
        """Wait until `what` returns something true; return that."""
        try:
            waiting = WebDriverWait(self.driver, PATIENCE, 0.05, PASSING)
            return waiting.until(lambda _: what())
        except TimeoutException:
            raise AssertionError(f"in vain, at {self.driver.current_url}: {self.text('body')[:2000]}") from None

    def find(self, selector: str) -> WebElement:
        """Return the element of a CSS selector, once it is there."""
        found: WebElement = self.wait(lambda: self.driver.find_element(By.CSS_SELECTOR, selector))
        return found

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.driver.find_element(By.CSS_SELECTOR, selector).text

    def sees(self, text: str, selector: str = "body") -> None:
        """Wait until an element has a text."""
        self.wait(lambda: text in self.text(selector))

    def click(self, text: str) -> None:
        """Click the link or button with exactly this text, or if there is none, one that begins with it."""

        def click() -> bool:
            found: WebElement | None = self.driver.execute_script(CLICKABLE, text)
            if found is None:
                return False
            found.click()
            return True

        self.wait(click)

    def type(self, label: str, text: str, enter: bool = False) -> None:
        """Type into the field with a label."""
        identity = self.wait(
            lambda: next(
                (each.get_attribute("for") for each in self.all("label") if each.get_attribute("textContent") == label),
                None,
            )
        )
        field = self.find(f"#{identity}")
        field.clear()
        field.send_keys(text, *([Keys.ENTER] if enter else []))

    def keys(self, *names: str) -> None:
        """Press keys, wherever the focus is."""
        for name in names:
            ActionChains(self.driver).send_keys(getattr(Keys, name)).perform()

    def violations(self, axe: str) -> list[str]:
        """Return what axe-core finds wrong with the page, of level A and AA."""
        if not self.driver.execute_script("return window.axe !== undefined"):
            self.driver.execute_script(axe)
        found = self.driver.execute_async_script(
            """
            const done = arguments[arguments.length - 1];
            const levels = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
            axe.run(document, { runOnly: { type: "tag", values: levels } }).then((result) => done(result.violations));
            """
        )
        return [f"{each['id']}: {[node['target'] for node in each['nodes']][:3]} {each['help']}" for each in found]

    def picture(self, path: Path) -> None:
        """Write a picture of the window."""
        assert self.driver.save_screenshot(str(path))

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        return int(self.driver.execute_script("return document.documentElement.scrollWidth - innerWidth"))
