"""The clients when a server's name points to another address, or to none: what a failover by DNS is to them.

The lookups are real, at a DNS server of the test's own. Only where to ask is told to gRPC by a longer address.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from support.names import Names
from support.ports import free_port
from support.waiting import Call, until

from stiqueue import SQServer, Unavailable
from stiqueue.client.calls.endpoint import Endpoint

from .conftest import Connect

pytestmark = [
    pytest.mark.scenario("its name points to another address (DNS)"),
    pytest.mark.skipif(sys.platform != "linux", reason="needs several loopback addresses"),
]
NAME = "queue.test"
OLD, NEW = "127.0.0.2", "127.0.0.3"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """A DNS server that is asked for every server's name."""
    with Names() as names:
        monkeypatch.setattr(Endpoint, "__str__", lambda endpoint: names.target(endpoint.host, endpoint.port))
        yield names


@pytest.fixture
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data file that the new server takes over."""
    return str(tmp_path_factory.mktemp("data") / "stiqueue.db")


@pytest.mark.slow
def test_a_failover_is_followed(connect: Connect, names: Names, data: str) -> None:
    """The server dies, and only some time later the name points to the next one."""
    names.address, port = OLD, free_port(OLD)
    client = connect(port, host=NAME)
    with SQServer(host=OLD, port=port, data=data):
        client.enq("confirmed", queue="other")
        waiting = Call(client.deq)
        until(lambda: client.counts().consumers, 1)
    asked = names.questions
    calling = Call(client.enq, "meanwhile", queue="other")
    until(lambda: names.questions > asked)  # it was told the address of the dead one again
    with SQServer(host=NEW, port=port, data=data):
        assert not calling.is_over()
        names.address = NEW
        calling.result()
        assert client.peek(queue="other") == b"confirmed,meanwhile"
        client.enq("a")
        assert waiting.result() == b"a"
        client.close()


@pytest.mark.slow
def test_a_planned_move_is_followed(connect: Connect, names: Names, data: str) -> None:
    """The name moves first. A connection that works is kept until the old server ends it."""
    names.address, port = OLD, free_port(OLD)
    client = connect(port, host=NAME)
    with SQServer(host=OLD, port=port, data=data):
        waiting = Call(client.deq)
        until(lambda: client.counts().consumers, 1)
        names.address = NEW
        client.enq("kept", queue="other")
    with SQServer(host=NEW, port=port, data=data):
        assert client.peek(queue="other") == b"kept"
        client.enq("a")
        assert waiting.result() == b"a"
        client.close()


@pytest.mark.slow
def test_a_name_that_comes_in_time_is_waited_for(connect: Connect, names: Names) -> None:
    port = free_port(OLD)
    calling = Call(connect(port, host=NAME).enq, "a")
    assert not calling.is_over(0.2)
    with SQServer(host=OLD, port=port):
        names.address = OLD
        assert calling.result() == 1


def test_the_error_says_which_name_is_not_known(connect: Connect, names: Names) -> None:
    client = connect(free_port(OLD), host=NAME, timeout=0.3)
    for call in client.deq, client.cnt:
        with pytest.raises(Unavailable, match=NAME):
            call()
