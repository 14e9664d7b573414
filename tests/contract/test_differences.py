"""The table of differences is that of the documentation, and names tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

from .differences import DIFFERENCES, OF_SEVERAL_SERVERS, RULES, table

HERE = Path(__file__).parent


def test_the_documentation_has_the_table() -> None:
    assert table() in (HERE.parents[1] / "docs" / "cluster.md").read_text()


def test_each_difference_is_of_a_rule_and_a_test_that_exist() -> None:
    tests = {
        each.name
        for path in HERE.glob("test_*.py")
        for each in ast.parse(path.read_text()).body
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert DIFFERENCES.keys() | OF_SEVERAL_SERVERS.keys() <= tests
    assert not DIFFERENCES.keys() & OF_SEVERAL_SERVERS.keys()
    assert all(difference.rule in RULES for difference in (*DIFFERENCES.values(), *OF_SEVERAL_SERVERS.values()))
