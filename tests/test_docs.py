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
from stiqueue.v1 import queue_pb2

ROOT = Path(__file__).parents[1]
PROTOCOL = (ROOT / "docs/protocol.md").read_text()
PROTO = (ROOT / "proto/stiqueue/v1/queue.proto").read_text()
SERVICE = queue_pb2.DESCRIPTOR.services_by_name["QueueService"]
METHODS = {method.full_name.replace(".QueueService.", ".QueueService/"): method for method in SERVICE.methods}
COMMANDS = re.findall(r"^    (grpcurl .*)$", PROTOCOL + (ROOT / "docs/clients.md").read_text(), re.M)


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
        json_format.Parse(data, getattr(queue_pb2, METHODS[called].input_type.name)())


def test_every_rpc_has_a_command() -> None:
    assert {shlex.split(command)[-1] for command in COMMANDS} >= set(METHODS)


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
