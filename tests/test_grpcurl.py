"""The lines for a shell in the docs work as shown, by server reflection alone.

By grpcurl itself where it is installed: ``go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest``, which takes
a minute or two and is therefore not for CI. There the same requests go by ``buf curl``, which reads the same words.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from support.services import missing
from support.waiting import PATIENCE

from stiqueue import SQServer
from stiqueue.v1 import queue_pb2

DOCS = Path(__file__).parents[1] / "docs"
PAGES = (DOCS / "protocol.md").read_text() + (DOCS / "clients.md").read_text()
SHOWN_LEASE = "9f3a5c1e7b20-1"
VARYING = {"lease_id", "enqueue_time_ms", "oldest_ready_age_ms", "state_age_ms"}
TOOLS = [pytest.param("buf", marks=pytest.mark.slow), pytest.param("grpcurl", marks=pytest.mark.soak)]


@pytest.fixture(params=TOOLS)
def tool(request: pytest.FixtureRequest) -> str:
    """The path of a tool that calls by reflection."""
    places = [str(Path(sys.executable).parent), str(Path.home() / "go" / "bin")]
    found = shutil.which(request.param) or shutil.which(request.param, path=":".join(places))
    if found is None:
        missing(request.param)
    return found


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[SQServer]:
    """A server with a data file, which the answers on the pages are from."""
    with SQServer(port=0, data=str(tmp_path / "stiqueue.db")) as server:
        yield server


def shown(ending: str) -> tuple[list[str], str]:
    """Return the words of the first command that ends so, and what is shown below it."""
    found = re.search(rf"^    (grpcurl -plaintext .*{re.escape(ending)})$\n*((?:    [^\n]*\n)*)", PAGES, re.M)
    assert found, ending
    return shlex.split(found[1]), found[2]


def started(tool: str, words: list[str], server: SQServer) -> subprocess.Popen[str]:
    """Run a command of the docs by `tool` against `server`."""
    command = [word.replace(":1234", f":{server.port}") for word in [tool, *words[1:]]]
    if Path(tool).name == "buf":
        *_, data, target, method = command
        connection = ["--protocol", "grpc", "--http2-prior-knowledge"]
        command = [tool, "curl", *connection, "-d", data, f"http://{target}/{method}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answer(tool: str, words: list[str], server: SQServer) -> str:
    """Return what a command prints; it must go well."""
    with started(tool, words, server) as process:
        output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    return output


def first_object(process: subprocess.Popen[str]) -> str:
    """Return the first JSON object that a command prints that has not ended."""
    assert process.stdout is not None
    text = ""
    while line := process.stdout.readline():
        text += line
        try:
            json.loads(text)
        except ValueError:
            continue
        return text
    raise AssertionError(text)


def without_what_varies(text: str, response: str) -> Any:
    """Return an answer as data, however the tool writes it, without times and the like."""

    def reduced(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: reduced(each) for name, each in value.items() if name not in VARYING}
        return [reduced(each) for each in value] if isinstance(value, list) else value

    message = json_format.Parse(text, getattr(queue_pb2, response)())
    return reduced(json_format.MessageToDict(message, preserving_proto_field_name=True))


def test_the_commands_for_a_shell_do_what_is_shown(tool: str, durable: SQServer) -> None:
    for rpc in "Enq", "Cnt", "Peek":
        words, told = shown(f"/{rpc}")
        response = f"{rpc}Response"
        found = answer(tool, words, durable)
        assert without_what_varies(found, response) == without_what_varies(told, response), rpc

    words, told = shown("/Deq")
    with started(tool, words, durable) as consumer:
        try:
            found = first_object(consumer)
            assert without_what_varies(found, "DeqResponse") == without_what_varies(told, "DeqResponse")
            lease_id = json_format.Parse(found, queue_pb2.DeqResponse()).messages[0].lease_id
            words, told = shown("/Ack")
            words = [word.replace(SHOWN_LEASE, lease_id) for word in words]
            assert json.loads(answer(tool, words, durable)) == json.loads(told) == {}
            consumer.communicate(timeout=PATIENCE)
            assert consumer.returncode == 0, "nothing is left, so it ends"
        finally:
            consumer.kill()

    answer(tool, shown('["aGVsbG8="]}\' localhost:1234 stiqueue.v1.QueueService/Enq')[0], durable)
    taken = answer(tool, shown('"no_ack": true}\' localhost:1234 stiqueue.v1.QueueService/Deq')[0], durable)
    (message,) = json_format.Parse(taken, queue_pb2.DeqResponse()).messages
    assert message.body == b"hello"

    assert json.loads(answer(tool, shown("grpc.health.v1.Health/Check")[0], durable)) == {"status": "SERVING"}
    if Path(tool).name == "grpcurl":
        assert "stiqueue.v1.QueueService\n" in answer(tool, shown(" list")[0], durable)
        assert "rpc Deq (" in answer(tool, shown(" describe stiqueue.v1.QueueService")[0], durable)
