"""README and reference say what is so: programs print what is shown; options, methods, errors and tests exist."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from stiqueue import AsyncSQClient, LocalSQClient, SQClient, SQServer, StiQueueError, errors
from stiqueue.settings import Settings
from stiqueue.wire.status import to_wire

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PATIENCE = 60.0

PAGES = README + (ROOT / "docs/options.md").read_text()
EXAMPLES = re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?```python\n(.*?)```\n\n```text\n(.*?)```", PAGES, re.M | re.S)
"""(heading, program, output)"""
INTERNAL_METHODS = {"after_fork", "backoff_of", "end"}
"""Methods without underscore that are for our own modules."""


def rows(page: str) -> list[list[str]]:
    """Return the cells of the rows of the table on a page, without its head."""
    lines = [line for line in (ROOT / "docs" / page).read_text().splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def clean_environment() -> dict[str, str]:
    ours = {name: text for name, text in os.environ.items() if not name.startswith("STIQUEUE_")}
    return ours | {"PYTHONPATH": str(ROOT)}


def run(program: str, port: int) -> str:
    """Run `program` as its own process, with the default port being that of the test's server."""
    program = re.sub(r"\bSQClient\((?!port)", f"SQClient(port={port}, ", program)
    program = re.sub(r"\bWorker\((.*)\)", rf"Worker(\1, port={port})", program)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_examples_are_all_here() -> None:
    headings = [heading for heading, _, _ in EXAMPLES]
    assert headings == ["Quick start", "A worker", "A server in your program"]
    assert PAGES.count("```python") == len(EXAMPLES)


@pytest.mark.parametrize(("program", "output"), [example[1:] for example in EXAMPLES], ids=[e[0] for e in EXAMPLES])
def test_an_example_prints_what_it_says_twice_in_a_row(server: SQServer, program: str, output: str) -> None:
    assert run(program, server.port) == output
    assert run(program, server.port) == output


@pytest.mark.slow
def test_the_commands_print_what_it_says_twice_in_a_row(server: SQServer) -> None:
    found = re.search(r"^((?:    stiqueue [^\n]+\n)+)\nThe last two print:\n\n```text\n(.*?)```", README, re.M | re.S)
    assert found
    commands = [shlex.split(line)[1:] for line in found[1].splitlines()]
    environment = clean_environment() | {"STIQUEUE_PORT": str(server.port)}
    for _ in range(2):
        printed = []
        for command in commands:
            done = subprocess.run(
                [sys.executable, "-m", "stiqueue", *command],
                env=environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            printed.append(done.stdout)
        assert "".join(printed[-2:]) == found[2]


def named_tests() -> list[str]:
    documents = "".join((ROOT / f"docs/{name}.md").read_text() for name in ("promises", "durability", "abuse"))
    return list(dict.fromkeys(re.findall(r"tests/[\w/]+\.py::\w+", documents)))


def test_every_promise_names_a_test() -> None:
    promises = [row for row in rows("promises.md") if not row[0].startswith("**")]
    assert len(promises) > 15
    for promise, proof in promises:
        assert re.fullmatch(r"`tests/[\w/]+\.py::\w+`(, `tests/[\w/]+\.py::\w+`)*", proof), promise


@pytest.mark.parametrize("name", named_tests())
def test_a_test_that_is_named_exists(name: str) -> None:
    path, _, function = name.partition("::")
    body = ast.parse((ROOT / path).read_text()).body
    assert function in {each.name for each in body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_table_of_options_is_that_of_the_server() -> None:
    table = {row[0].strip("`"): row[1] for row in rows("options.md")}
    expected = {}
    for field in dataclasses.fields(Settings):
        name = ("--no-" if field.default is True else "--") + field.name.replace("_", "-")
        expected[name] = "off" if isinstance(field.default, bool) else str(field.default).lower()
    assert table == expected


def test_the_table_of_methods_is_that_of_the_client() -> None:
    named = {re.match(r"`(\w+)\(", row[0])[1] for row in rows("api.md")}  # type: ignore[index]
    for client in SQClient, LocalSQClient, AsyncSQClient:
        methods = {name for name in dir(client) if not name.startswith("_") and callable(getattr(client, name))}
        assert named == methods - INTERNAL_METHODS


def test_the_table_of_errors_is_that_of_the_package() -> None:
    told = {row[0].strip("`"): row[1] for row in rows("errors.md")}
    kinds = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    kinds = {name: kind for name, kind in kinds.items() if issubclass(kind, StiQueueError) and kind != StiQueueError}
    # Those that a client raises by itself have no status.
    own = ("Closed", "MessageLeased", "NoAnswer", "RemoteError")
    assert told == {name: "none" if name in own else to_wire(kind())[0].name for name, kind in kinds.items()}
    tree = re.findall(r"^[ │]*[├└]── (\w+)$", (ROOT / "docs/errors.md").read_text(), re.M)
    assert sorted(tree) == sorted(told)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target
