"""docs/protocol.md says what the protocol says: every reason of every RPC, and requests that grpcurl can send."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
from google.protobuf import json_format
from grpc_health.v1 import health_pb2

from stiqueue.settings import Settings
from stiqueue.v1 import admin_pb2, queue_pb2

ROOT = Path(__file__).parents[1]
PROTOCOL = (ROOT / "docs/protocol.md").read_text()
PROTO = (ROOT / "proto/stiqueue/v1/queue.proto").read_text()
SERVICE = queue_pb2.DESCRIPTOR.services_by_name["QueueService"]
METHODS = {method.full_name.replace(".QueueService.", ".QueueService/"): method for method in SERVICE.methods}
ADMIN = (ROOT / "proto/stiqueue/v1/admin.proto").read_text()
INPUTS = {name: getattr(queue_pb2, method.input_type.name) for name, method in METHODS.items()} | {
    f"stiqueue.v1.AdminService/{method.name}": getattr(admin_pb2, method.input_type.name)
    for method in admin_pb2.DESCRIPTOR.services_by_name["AdminService"].methods
}
COMMANDS = re.findall(r"^    (grpcurl .*)$", PROTOCOL + (ROOT / "docs/clients.md").read_text(), re.M)


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    named = set(re.findall(r"^ +- (?:[^:\n]+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.M))
    outside = {"index.md", "changelog.md", "contributing.md", "security.md"}
    assert named == outside | {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}


def section(heading: str) -> str:
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PROTOCOL, re.M | re.S)
    assert found, heading
    return found[1]


@pytest.mark.parametrize("rpc", [method.name for method in SERVICE.methods])
def test_every_status_and_reason_of_an_rpc_is_told(rpc: str) -> None:
    comment = re.search(rf"((?:^  //.*\n)+)  rpc {rpc}\(", PROTO, re.M)
    assert comment
    errors = comment[1].replace("\n  //", "").partition("Errors:")[2]
    table = "\n".join(line for line in section(rpc).splitlines() if line.startswith(("| `", "| |")))
    told = {name for name in re.findall(r"`([A-Z][A-Z_]+)`", table) if not name.startswith("OUTCOME_")}
    # Every RPC can end with this one: the comment of the file says so.
    assert told - {"UNAVAILABLE", "SHUTTING_DOWN"} == set(re.findall(r"\b[A-Z][A-Z_]+\b", errors))


@pytest.mark.parametrize("command", COMMANDS)
def test_grpcurl_can_send_what_is_written(command: str) -> None:
    words = shlex.split(command)
    assert words[:2] == ["grpcurl", "-plaintext"]
    assert "localhost:1234" in words
    if "-d" not in words:
        assert words[-2:] in (["localhost:1234", "list"], ["describe", SERVICE.full_name])
        return
    data, called = words[words.index("-d") + 1], words[-1]
    if called == "grpc.health.v1.Health/Check":
        json_format.Parse(data, health_pb2.HealthCheckRequest())
    else:
        json_format.Parse(data, INPUTS[called]())


def test_every_rpc_has_a_command() -> None:
    assert {shlex.split(command)[-1] for command in COMMANDS} >= set(INPUTS)


def test_every_reason_of_the_settings_is_told() -> None:
    told = set(re.findall(r"`([A-Z]+_[A-Z_]+)`", section("Settings")))
    assert told == set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", ADMIN.replace("\n  //", "")))


def test_the_answers_are_those_of_the_rpcs() -> None:
    for rpc in SERVICE.methods:
        answer = re.search(r"QueueService/\w+\n\n((?:    [^\n]*\n)+)", section(rpc.name))
        assert answer, rpc.name
        json_format.Parse(answer[1], getattr(queue_pb2, rpc.output_type.name)())


def test_every_limit_is_told_with_its_option_and_default() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    table = text[text.index("\n## Limits") :]
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \| `--([a-z-]+)` \|", table, re.M)
    told = {option.replace("-", "_"): default for default, option in rows}
    limits = {field.name: field.default for field in dataclasses.fields(Settings) if field.name.startswith("max_")}
    assert told.keys() - {"buff_size"} == limits.keys() - {"max_attempts"}  # which is a rule of retrying
    for name, default in limits.items():
        if default and name in told:
            assert f"{default:,}" in told[name]
