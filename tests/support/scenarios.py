"""The table of docs/clients.md: what may happen to a client, what it does then, and which tests have seen it.

A test says ``@pytest.mark.scenario("server restarts")``, and which client it is for: by its parameter `kind`, or by
``client="SQClient"``. A run of all such tests (the slow ones may be left out) in which none fails compares the table
with the page, or writes it: ``--write-scenarios``.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
BEGIN, END = "<!-- scenarios: begin -->\n", "<!-- scenarios: end -->\n"
CLIENTS = ("SQClient", "AsyncSQClient")
KEY = "scenarios"
"""Under which a worker of pytest-xdist hands over what it has collected."""
SCENARIOS = {
    "server restarts": "calls wait and go on, a waiting `deq` and a loop too; nothing is enqueued twice",
    "server is killed (`kill -9`)": "the same; every confirmed message is there, and no message comes again whose "
    "`ack` returned (the ack that `deq` sends for the message before may not have reached the disk)",
    "server hangs (SIGSTOP)": "calls raise `Unavailable` after `timeout` and say why; afterwards it goes on",
    "connection is reset, or an answer lost": "sends the request again under its old `request_id`",
    "its name points to another address (DNS)": "looks the name up again when the connection ends, once a second",
    "server stays away": "every call raises `Unavailable` after `timeout`; `close` ends those that wait",
    "server is not trusted, or does not trust": "every call and loop raises `Unauthenticated` at once and says why",
    "fork": "works on both sides, or says what to do instead; a child leaves its parent's messages alone",
    "spawn": "a child has its own client, and settles its messages when it ends",
    "threads": "shared by all threads (`SQClient`) or tasks of its event loop (`AsyncSQClient`)",
    "interpreter ends": "a clean exit acks the message that `deq` returned last, any other gives it back, none hangs",
    "thousands at once": "5,000 tasks, or 1,000 threads, are all served; calls refused in the rush are retried",
}


class Scenarios:
    """The outcomes of one run. A plugin of pytest."""

    def __init__(self, write: bool) -> None:
        """Compare with the page, or `write` it."""
        self._write = write
        self._collected: dict[str, tuple[str, str, str]] = {}
        """By the id of a test: scenario, client, the test's name without parameters."""
        self._outcomes: dict[str, str] = {}
        self._complaint = ""

    @pytest.hookimpl(tryfirst=True)  # before some are deselected
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        for item in items:
            mark = item.get_closest_marker("scenario")
            if mark is not None:
                (scenario,) = mark.args
                parameters = item.callspec.params if hasattr(item, "callspec") else {}
                client = mark.kwargs.get("client") or parameters["kind"]
                assert scenario in SCENARIOS, scenario
                assert client in CLIENTS, client
                self._collected[item.nodeid] = scenario, client, item.nodeid.partition("[")[0]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput[KEY] = self._collected

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Where tests run side by side, only the workers know the marks, and only their controller all outcomes."""
        self._collected |= {test: tuple(told) for test, told in getattr(node, "workeroutput", {}).get(KEY, {}).items()}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self._outcomes[report.nodeid] = report.outcome

    def table(self) -> str:
        """Return the table of what was run."""
        tests: dict[str, dict[str, set[str]]] = {name: defaultdict(set) for name in SCENARIOS}
        for scenario, client, test in self._collected.values():
            tests[scenario][client].add(test)
        lines = ["| what happens | what the client does | " + " | ".join(f"`{name}`" for name in CLIENTS) + " |"]
        lines.append("|---|---|" + "---|" * len(CLIENTS))
        for scenario, promise in SCENARIOS.items():
            cells = " | ".join(_cell(tests[scenario][client]) for client in CLIENTS)
            lines.append(f"| {scenario} | {promise} | {cells} |")
        return "\n".join(lines) + "\n"

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            return  # the controller does it
        seen = {(scenario, client) for scenario, client, _ in self._collected.values()}
        outcomes = {outcome for test, outcome in self._outcomes.items() if test in self._collected}
        if len(seen) < len(SCENARIOS) * len(CLIENTS) or not outcomes <= {"passed"}:
            return  # not all of them were asked for, or one has failed: that is told already
        page = PAGE.read_text()
        before, rest = page.split(BEGIN)
        told, after = rest.split(END)
        if told == self.table():
            return
        if self._write:
            PAGE.write_text(before + BEGIN + self.table() + END + after)
        else:
            self._complaint = f"{PAGE.name} is not up to date: run the tests with --write-scenarios"
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._complaint:
            terminalreporter.write_line(self._complaint, red=True)


def _cell(tests: set[str]) -> str:
    """Say in which files the tests are. Not how many: the page need not change with each of them."""
    files = sorted({test.partition("::")[0] for test in tests})
    return ", ".join(f"[{Path(file).stem}](../{file})" for file in files)
