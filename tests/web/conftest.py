"""Fixtures of the console: a browser for all tests of a process, and what checks accessibility."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from support.services import missing

from stiqueue import SQClient, SQServer
from web.browser import Browser
from web.console import Console

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
"""Debian's packages chromium and chromium-driver."""
AXE = "axe-core@4.14.1"
AXE_HASH = "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="


@pytest.fixture
def console(server: SQServer) -> Iterator[Console]:
    """A console of `server`."""
    with Console(server.port) as console:
        yield console


@pytest.fixture(scope="session")
def driver() -> Iterator[webdriver.Chrome]:
    """A browser, which takes seconds to start."""
    if not (os.path.exists(CHROMIUM) and os.path.exists(DRIVER)):
        missing("chromium or chromium-driver (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def browser(driver: webdriver.Chrome) -> Iterator[Browser]:
    """A browser without cookies, as wide as a desk has it."""
    browser = Browser(driver)
    browser.begin()
    yield browser
    browser.end()


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script that checks a page for violations of the WCAG."""
    if shutil.which("npm") is None:
        missing("npm")
    directory = tmp_path_factory.mktemp("axe")
    done = subprocess.run(
        ["npm", "pack", AXE, "--silent", "--pack-destination", str(directory)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        cwd=directory,
    )
    if done.returncode:
        missing(f"{AXE} from npm")
    (archive,) = directory.glob("*.tgz")
    found = base64.b64encode(hashlib.sha512(Path(archive).read_bytes()).digest()).decode()
    assert f"sha512-{found}" == AXE_HASH
    with tarfile.open(archive) as files:
        script = files.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


@pytest.fixture
def full(server: SQServer) -> SQServer:
    """A server with a few queues, such as people have."""
    fill(server)
    return server


def fill(server: SQServer) -> None:
    """Put messages of every state into `server`."""
    with SQClient(port=server.port) as client:
        for number in range(120):
            client.enq(
                f'{{"order": {number}, "customer": "c-{number % 7}"}}',
                queue="orders",
                headers={"tenant": f"t{number % 5}"},
            )
        client.enq("later", queue="orders", delay=3_600, priority=5)
        for number in range(3):
            client.enq(f"letter {number}", queue="mail", headers={"to": f"u{number}@example.org"})
    with SQClient(port=server.port, auto_ack=False, consumer="mailer-1", queue="mail") as client:
        for _ in range(2):
            message = client.deq(timeout=5.0)
            assert message is not None
            message.dead_letter("550 mailbox unavailable")
