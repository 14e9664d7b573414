"""Programs whose threads gevent or eventlet has replaced are told so; others that use these libraries are not."""

from __future__ import annotations

import importlib.util

import pytest
from support.services import missing
from support.waiting import run_python

from stiqueue import SQServer

PATCHED = {
    "gevent": "from gevent import monkey; monkey.patch_all({})",
    "eventlet": "import eventlet; eventlet.monkey_patch({})",
}
USES = {
    "SQClient": "SQClient(port=port).deq(timeout=2)",
    "AsyncSQClient": "asyncio.run(AsyncSQClient(port=port).deq(timeout=2))",
    "SQServer": "SQServer(port=0).start()",
    "Worker": "Worker(print, 'a', port=port).run()",
}
PROGRAM = """
import warnings
warnings.simplefilter("ignore")
{patch}
import asyncio, sys
from stiqueue import AsyncSQClient, NotSupported, SQClient, SQServer, Worker
port = int(sys.argv[1])
try:
    print({use})
except NotSupported as error:
    print("refused:", error)
"""


@pytest.fixture(params=["gevent", "eventlet"])
def library(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name if importlib.util.find_spec(name) else missing(name)


@pytest.mark.slow
@pytest.mark.parametrize("use", USES)
def test_patched_threads_are_refused_at_once(server: SQServer, library: str, use: str) -> None:
    patch = PATCHED[library].format("")
    done = run_python(PROGRAM.format(patch=patch, use=USES[use]), server.port)
    assert done.stdout.startswith("refused: "), done.stderr
    assert f"{library} has patched threads" in done.stdout
    assert "thread=False" in done.stdout


@pytest.mark.slow
def test_a_program_whose_threads_are_left_alone_works(server: SQServer, library: str) -> None:
    patch = PATCHED[library].format("thread=False")
    use = "SQClient(port=port).enq('a'), SQClient(port=port).deq(timeout=2)"
    done = run_python(PROGRAM.format(patch=patch, use=use), server.port)
    assert done.stdout == "1 b'a'\n", done.stderr
