"""`stiqueue move`: what is kept, what stays, and that a move that dies anywhere loses and doubles nothing."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stiqueue import InvalidRequest, LocalSQClient, QueueFull, SQClient, SQServer, StiQueueError
from stiqueue.client.base import BaseClient
from stiqueue.client.move import Move
from stiqueue.message import DEAD_REASON_HEADER, STAGING_HEADER, Outcome, Settlement
from tests.cli.conftest import Cli, bodies
from tests.support.nats_servers import NatsServer
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE

STAGED = "default.moving"
NO_ROOM_FOR_A_MARK = {DEAD_REASON_HEADER: "x" * 2_000}
"""More than StiQueue puts there, so that its own headers have no room for one more."""


@pytest.fixture
def other() -> Iterator[SQClient]:
    """A client of an empty server."""
    with SQServer(port=0) as server, SQClient(port=server.port, timeout=10.0) as client:
        yield client


def to(client: SQClient) -> str:
    return f"127.0.0.1:{client.port}"


def seen(client: BaseClient, queue: str) -> list[tuple[bytes, int, dict[str, str]]]:
    return [(bytes(each), each.priority, each.headers) for each in client.peek_messages(queue=queue)]


def wait_until(fact: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not fact():
        assert time.monotonic() < give_up
        time.sleep(0.01)


# -- what is moved ----------------------------------------------------------------------------------------------------


def test_every_message_is_there_and_none_is_here(cli: Cli, client: SQClient, other: SQClient) -> None:
    client.enq("low", queue="q")
    client.enq(bytes(range(256)), queue="q", priority=9, headers={"key": "value", "\xe4": "\N{PARTY POPPER}"})
    client.enq_many(["", "x", "y"], queue="q", priority=9)
    client.enq("mortal", queue="q", ttl=3600)
    before = seen(client, "q")
    (expire,) = [each.expire_time_ms for each in client.peek_messages(queue="q") if each == b"mortal"]
    done = cli.ok("move", "-q", "q", to(other))
    assert done.text == f"moved 6 messages of q to q at {to(other)}\n"
    assert seen(other, "q") == before
    (moved,) = [each.expire_time_ms for each in other.peek_messages(queue="q") if each == b"mortal"]
    assert moved == pytest.approx(expire, abs=100)
    assert client.queues() == {}


def test_to_another_queue_and_of_the_same_server(cli: Cli, client: SQClient, other: SQClient) -> None:
    client.enq_many(["a", "b"])
    done = cli.ok("move", "--to-queue", "new", "--json", to(other))
    told = {"queue": "default", "moved": 2, "resumed": 0, "expired": 0, "leased": 0, "delayed": 0}
    assert done.json == told
    cli.ok("move", "-q", "none", to(other))
    cli.ok("move", "--to-queue", "elsewhere", f"127.0.0.1:{cli.port}")
    assert bodies(other, "new") == [b"a", b"b"]


def test_of_many_messages_the_order_is_kept(cli: Cli, client: SQClient, other: SQClient) -> None:
    client.enq_many(str(number) for number in range(5_000))
    client.enq_many(str(number).ljust(300_000) for number in range(5_000, 5_010))
    assert cli.ok("move", to(other)).text.startswith("moved 5,010 messages")
    assert [int(body) for body in bodies(other)] == list(range(5_010))


def test_what_is_leased_or_delayed_stays(cli: Cli, client: SQClient, other: SQClient) -> None:
    client.enq_many(["held", "ready"])
    held = client.deq(timeout=5)
    client.enq("later", delay=3600)
    done = cli.run("move", to(other))
    assert (done.code, done.err) == (0, "stiqueue: 2 messages stayed: 1 leased, 1 delayed\n")
    assert bodies(other) == [b"ready"]
    assert held is not None
    assert held.ack()


def test_with_a_timeout_it_moves_what_comes_in_meanwhile(cli: Cli, client: SQClient, other: SQClient) -> None:
    client.enq("due soon", delay=0.3)
    assert cli.ok("move", "--timeout", "1.5", to(other)).text.startswith("moved 1 message")
    assert bodies(other) == [b"due soon"]


def test_what_expires_on_the_way_is_left_out(client: SQClient, other: SQClient) -> None:
    """Staged messages do not expire by themselves; what is left of the ttl counts when they are copied."""
    mark = f"group {int(time.time() * 1000) - 1}"
    client.enq_many(["dead", "dead too"], queue=STAGED, headers={STAGING_HEADER: mark})
    move = Move(client, other, "default")
    move.run()
    assert (move.moved, move.expired, move.resumed) == (0, 2, 2)
    assert client.queues() == other.queues() == {}


def test_requests_are_as_small_as_the_target_wants_them(cli: Cli, client: SQClient) -> None:
    client.enq_many(bytes([number]) * 20_000 for number in range(10))
    with SQServer(port=0, buff_size=64 << 10) as server, SQClient(port=server.port) as small:
        cli.ok("move", to(small))
        assert bodies(small) == [bytes([number]) * 20_000 for number in range(10)]


def test_messages_without_room_for_a_mark_are_moved_as_well(cli: Cli, client: SQClient, other: SQClient) -> None:
    most = NO_ROOM_FOR_A_MARK
    client.enq_many(["a", "b"], headers=most)
    client.enq("c")
    cli.ok("move", to(other))
    assert seen(other, "default") == [(b"a", 0, most), (b"b", 0, most), (b"c", 0, {})]
    assert client.queues() == {}


def test_from_a_full_server(other: SQClient) -> None:
    with SQServer(port=0, max_bytes=12_000) as server, SQClient(port=server.port) as full:
        number = 0
        with contextlib.suppress(QueueFull):
            while True:
                full.enq(b"x" * 1_000)
                number += 1
        Cli(server.port).ok("move", to(other))
        assert (full.cnt(), other.cnt()) == (0, number)


@pytest.mark.slow
def test_while_producers_and_consumers_are_at_work(cli: Cli, client: SQClient, other: SQClient) -> None:
    """Producers still enqueue here, consumers already take there: each message reaches one of them, in order."""
    numbers, taken = range(3_000), list[int]()

    def produce() -> None:
        for begin in range(0, len(numbers), 100):
            client.enq_many(str(number) for number in numbers[begin : begin + 100])

    def consume() -> None:
        for message in other.consume(prefetch=50):
            taken.append(int(message))
            if len(taken) == len(numbers):
                message.ack()
                break

    threads = [threading.Thread(target=work, daemon=True) for work in (produce, consume)]
    for thread in threads:
        thread.start()
    cli.ok("move", "--timeout", "2", to(other))
    for thread in threads:
        thread.join(PATIENCE)
    assert taken == list(numbers)
    assert cli.ok("move", to(other)).text.startswith("moved 0 messages")


# -- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_full_target_is_told_and_goes_on_later(cli: Cli, client: SQClient) -> None:
    client.enq_many(str(number) for number in range(3_000))
    with SQServer(port=0, max_messages=1_500) as server, SQClient(port=server.port) as full:
        told = "; 999 messages moved before, 999 wait in default.moving for the next run"
        assert cli.fails(5, "move", to(full)).endswith(told)
        came = bodies(full)
        full.purge()
        assert "moved before" in cli.fails(5, "move", to(full))
        came += bodies(full)
        full.purge()
        done = cli.run("move", to(full))
        assert done.err == "stiqueue: 999 messages of them came from an earlier move that was stopped\n"
        came += bodies(full)
    assert [int(body) for body in came] == list(range(3_000))


def test_nobody_there(cli: Cli, nobody: Cli, client: SQClient, unused_port: int) -> None:
    nobody.fails(4, "move", "--connect-timeout", "0.2", f"127.0.0.1:{cli.port}")
    client.enq("a")
    text = cli.fails(4, "move", "--connect-timeout", "0.2", f"localhost:{unused_port}")
    assert text.endswith("; 0 messages moved before")
    assert [*client.queues()] == ["default"]


@pytest.mark.parametrize("address", ["", ":1", "host:port", "host:99999", "a/b", "user@host"])
def test_an_address_that_is_none(cli: Cli, address: str) -> None:
    assert "is not HOST[:PORT]" in cli.fails(2, "move", address)


def test_nowhere_else(cli: Cli) -> None:
    assert "source and target are the same queue" in cli.fails(2, "move", f"127.0.0.1:{cli.port}")


def test_a_second_move_waits_for_the_first(client: SQClient, other: SQClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stiqueue.client.staging.OTHERS_SECONDS", 0.2)
    client.enq("a")
    move = Move(client, other, "default")
    thread = threading.Thread(target=move.run, kwargs={"wait": 1.0}, daemon=True)
    thread.start()
    wait_until(lambda: other.cnt() == 1 and client.counts(queue=STAGED).consumers == 1)
    with SQClient(port=client.port) as third, pytest.raises(Exception, match="another move is at work"):
        Move(third, other, "default").run()
    thread.join(PATIENCE)
    assert not thread.is_alive()


# -- death ------------------------------------------------------------------------------------------------------------


class Died(BaseException):
    """What a move that dies at a request raises here."""


class Deadly:
    """Lets a client die at one of its requests: before it is made, or before its answer has come."""

    def __init__(self, client: BaseClient, at: int, answered: bool) -> None:
        """Die at request number `at`, from 0; `answered`: the server has done it."""
        self.requests = 0
        self._at, self._answered = at, answered
        self._client = client
        transport = client._session.connected()
        for name in ("enq", "settle"):
            setattr(transport, name, self._counted(getattr(transport, name)))

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def counted(*arguments: Any) -> Any:
            number, self.requests = self.requests, self.requests + 1
            if number == self._at and not self._answered:
                raise Died
            try:
                return await call(*arguments)
            finally:
                if number == self._at:
                    raise Died  # even if the answer is an error

        return counted


def stage(client: SQClient, target: SQClient, queue: str = "default") -> None:
    """Let a move of `queue` die once it has staged what is ready, and before the target has it."""
    Deadly(target, 2, answered=False)  # after the questions whether it is there, and would accept them
    with pytest.raises(Died):
        Move(client, target, queue).run()


def fill(client: SQClient) -> list[bytes]:
    """Enqueue messages of several kinds; return their bodies in the order of delivery."""
    client.enq_many(["a", "b", "c"])
    client.enq("many headers", headers={f"key-{number}": "" for number in range(64)})
    client.enq("no room for a mark", headers=NO_ROOM_FOR_A_MARK)
    client.enq_many(["d", "e"], headers={"key": "value"})
    client.enq("f", ttl=3600)
    return bodies(client)


def test_a_limit_or_a_pause_of_its_own_queue_holds_nothing_up(client: SQClient, other: SQClient) -> None:
    client.enq_many(map(str, range(20)))
    stage(client, other)
    client.configure(queue="*.moving", max_leased=5, ttl=0.001)
    client.pause(queue="*.moving")
    client.enq("20")
    move = Move(client, other, "default")
    move.run()
    assert (move.moved, move.resumed, move.staged) == (21, 20, 0)
    assert [int(body) for body in bodies(other)] == list(range(21))
    assert client.queues() == {}


@pytest.mark.parametrize("data", [None, "queue.db"])
def test_where_a_message_has_one_attempt_moves_may_die_as_often_as_they_like(
    tmp_path: Path, other: SQClient, data: str | None
) -> None:
    with SQServer(port=0, max_attempts=1, data=data and tmp_path / data) as server:
        with SQClient(port=server.port) as client:
            client.enq_many(["a", "b"])
            stage(client, other)
        for _ in range(3):
            with SQClient(port=server.port) as client:
                Deadly(other, 1, answered=False)
                with pytest.raises(Died):
                    Move(client, other, "default").run()
        with SQClient(port=server.port) as client:
            Move(client, other, "default").run()
            assert client.queues() == {}
    assert bodies(other) == [b"a", b"b"]


def test_a_refused_or_an_absent_target_counts_no_attempt(gateway: SQClient, unused_port: int) -> None:
    with SQServer(port=0, max_attempts=1) as server, SQClient(port=server.port) as client:
        client.enq("a", key="ann")
        with SQClient(port=unused_port, timeout=0.2) as nobody:
            for target in (gateway, nobody, gateway):
                with pytest.raises(StiQueueError):
                    Move(client, target, "default").run()
        assert [(each.attempt, bytes(each)) for each in client.peek_messages()] == [(0, b"a")]
        assert [*client.queues()] == ["default"]


def test_messages_of_an_interrupted_move_can_go_back(cli: Cli, client: SQClient, other: SQClient) -> None:
    client.enq("a", key="ann", unique_key="one", priority=3, headers={"h": "x"}, ttl=3600)
    before = [(bytes(each), each.key, each.unique_key, each.priority, each.headers) for each in client.peek_messages()]
    stage(client, other)
    wait_until(lambda: client.counts(queue=STAGED).consumers == 0)
    assert client.counts(queue=STAGED).delayed == 1
    done = cli.run("move", "-q", STAGED, "--to-queue", "default", to(client))
    assert (done.code, done.err) == (0, "stiqueue: 1 message of them came from an earlier move that was stopped\n")
    after = client.peek_messages()
    assert [(bytes(each), each.key, each.unique_key, each.priority, each.headers) for each in after] == before
    assert [*client.queues()] == ["default"]


@pytest.mark.slow
@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("which", ["source", "target"])
def test_it_may_die_at_any_request(which: str, answered: bool) -> None:
    for at in range(100):
        with SQServer(port=0) as server, SQServer(port=0) as to_server:
            with SQClient(port=server.port) as client:
                expected = fill(client)
            # A client that dies closes no stream in good order: both connections end with the block.
            with SQClient(port=server.port) as source, SQClient(port=to_server.port) as target:
                deadly = Deadly({"source": source, "target": target}[which], at, answered)
                try:
                    Move(source, target, "default").run()
                    died = False
                except Died:
                    died = True
            with SQClient(port=server.port) as source, SQClient(port=to_server.port) as target:
                Move(source, target, "default").run()
                assert bodies(target) == expected, f"died at request {at}"
                assert source.queues() == {}
            if not died:
                assert deadly.requests == at >= {"source": 7, "target": 4}[which]
                return
    raise AssertionError("it never came to its end")


def test_a_server_that_ends_the_streams_meanwhile(tmp_path: Path, other: SQClient) -> None:
    """The source is started again in the middle: what was leased comes again, and is moved once."""
    data = tmp_path / "queue.db"
    server = SQServer(port=free_port(), data=data).start()
    port = server.port
    with SQClient(port=port) as client:
        client.enq_many(str(number) for number in range(2_500))
    with SQClient(port=port, timeout=20.0) as source:
        move = Move(source, other, "default")
        servers = [server]

        def restart(number: int) -> None:
            if len(servers) < 3:
                servers[-1].stop(0)
                servers.append(SQServer(port=port, data=data).start())

        move.on_moved = restart
        move.run(wait=1.0)
        servers[-1].stop(0)
    assert len(servers) == 3
    assert [int(body) for body in bodies(other)] == list(range(2_500))


def test_acks_that_come_too_late_are_repeated(client: SQClient, other: SQClient) -> None:
    """The leases have expired when the target has confirmed: the messages are not copied again."""
    client.enq_many(["a", "b"])
    transport = client._session.connected()
    settle, requeued = transport.settle, list[str]()

    async def settle_late(settlement: Settlement, timeout: float) -> list[str]:
        if not requeued:
            requeued.extend(settlement.lease_ids)
            await settle(Settlement(settlement.lease_ids, Outcome.REQUEUE), timeout)
        return await settle(settlement, timeout)

    transport.settle = settle_late  # type: ignore[method-assign]
    move = Move(client, other, "default")
    move.run()
    assert move.moved == 2
    assert bodies(other) == [b"a", b"b"]
    assert client.queues() == {}


@pytest.mark.slow
def test_killed_again_and_again_it_loses_and_doubles_nothing(tmp_path: Path) -> None:
    total, kills = 30_000, 6
    moments = random.Random(seed := random.randrange(10**9))
    print(f"seed {seed}")
    with (
        SQServer(port=0, data=tmp_path / "from.db") as server,
        SQServer(port=0, data=tmp_path / "to.db") as to_server,
        SQClient(port=server.port) as source,
        SQClient(port=to_server.port) as target,
    ):
        source.enq_many(str(number) for number in range(total))
        cli = Cli(server.port)
        for _ in range(kills):
            before = target.cnt()
            with cli.start("move", to(target)) as process:
                wait_until(lambda before=before: target.cnt() > before)  # type: ignore[misc]
                time.sleep(moments.uniform(0, 0.05))
                assert process.poll() is None, "it was too fast to be killed"
                process.send_signal(signal.SIGKILL)
                process.wait(PATIENCE)
        assert 0 < target.cnt() < total
        assert cli.process("move", to(target)).code == 0
        assert [int(body) for body in bodies(target)] == list(range(total))
        assert source.queues() == {}


@pytest.mark.slow
def test_told_to_stop_it_says_how_far_it_came(cli: Cli, client: SQClient, other: SQClient) -> None:
    client.enq("a")
    with cli.start("move", "--timeout", "60", to(other)) as process:
        wait_until(lambda: other.cnt() == 1)
        client.enq("b")
        wait_until(lambda: other.cnt() == 2)  # so it has counted the first one
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGTERM
    assert re.fullmatch(
        rb"stiqueue: stopped with (1 message|2 messages) moved; run the same command to continue\n", err
    )


# -- a cluster --------------------------------------------------------------------------------------------------------


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A cluster of one server, not started."""
    nats = NatsServer(tmp_path / "nats")
    yield nats
    nats.end()


@pytest.fixture
def gateway(nats: NatsServer) -> Iterator[SQClient]:
    """A client of a gateway to a cluster of one server."""
    nats.start()
    with SQServer(port=0, engine=nats.address, replicas=1) as server, SQClient(port=server.port) as client:
        yield client


def test_to_a_cluster(cli: Cli, client: SQClient, gateway: SQClient) -> None:
    client.enq_many(str(number) for number in range(2_500))
    client.enq("mortal", headers={"key": "value"}, ttl=3600)
    assert cli.ok("move", to(gateway)).text.startswith("moved 2,501 messages")
    came = gateway.peek_messages()
    assert [bytes(each) for each in came] == [*(b"%d" % number for number in range(2_500)), b"mortal"]
    assert came[-1].headers == {"key": "value"}
    assert came[-1].expire_time_ms == pytest.approx(time.time() * 1000 + 3_600_000, abs=60_000)


def test_to_a_cluster_priorities_are_left_out_only_if_that_is_asked_for(
    cli: Cli, client: SQClient, gateway: SQClient
) -> None:
    client.enq("low")
    client.enq("high", priority=9)
    assert "; --flat drops priorities" in cli.fails(1, "move", to(gateway))
    assert cli.run("move", "--flat", to(gateway)).code == 0
    assert seen(gateway, "default") == [(b"high", 0, {}), (b"low", 0, {})]


def test_an_import_into_a_cluster_can_leave_out_priorities_as_well(
    cli: Cli, client: SQClient, gateway: SQClient, tmp_path: Path
) -> None:
    file = str(tmp_path / "all.jsonl")
    client.enq("low")
    client.enq("high", priority=9)
    cli.ok("export", file)
    there = Cli(gateway.port)
    assert there.fails(1, "import", file).endswith("; --flat drops priorities; with the first 0 lines done")
    assert there.ok("import", "--flat", file).text == "imported 2 messages\n"
    assert seen(gateway, "default") == [(b"high", 0, {}), (b"low", 0, {})]


@pytest.mark.parametrize("field", ["key", "unique_key"])
def test_a_cluster_refuses_keys_before_anything_is_staged(
    cli: Cli, client: SQClient, gateway: SQClient, field: str
) -> None:
    client.enq("plain")
    client.enq("a", **{field: "ann"})
    text = cli.fails(1, "move", to(gateway))
    assert text.startswith(f"stiqueue: {field}: JetStream cannot")
    assert text.endswith("; 1 message moved before")
    assert [*client.queues()] == ["default"]
    (left,) = client.peek_messages()
    assert (bytes(left), getattr(left, field), left.headers) == (b"a", "ann", {})
    assert bodies(gateway) == [b"plain"]


def test_a_message_above_the_limit_of_the_target_stays(client: SQClient) -> None:
    client.enq(b"x" * (2 << 20))
    client.enq("small")
    with SQServer(port=0, buff_size=1 << 20) as server, SQClient(port=server.port) as small:
        refuses(client, small, "larger than max")


def test_a_message_above_the_limit_of_a_cluster_stays(
    client: SQClient, nats: NatsServer, request: pytest.FixtureRequest
) -> None:
    nats.max_payload = "1MB"
    client.enq(b"x" * (2 << 20))
    client.enq("small")
    refuses(client, request.getfixturevalue("gateway"), "max_payload")


def refuses(client: SQClient, target: SQClient, reason: str) -> None:
    move = Move(client, target, "default")
    with pytest.raises(InvalidRequest, match=reason):
        move.run()
    assert (move.moved, move.staged) == (0, 0)
    assert target.queues() == {}
    assert (client.cnt(), [*client.queues()]) == (2, ["default"])


def test_a_token_that_may_only_enqueue_is_enough(client: SQClient, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("secret-of-the-move enq\n")
    tokens.chmod(0o600)
    client.enq("a", priority=3)
    with (
        SQServer(port=0, tokens=tokens) as server,
        SQClient(port=server.port, token="secret-of-the-move") as target,
    ):
        move = Move(client, target, "default")
        move.run()
        assert (move.moved, client.queues()) == (1, {})


def test_to_a_cluster_a_repeated_group_is_known(client: SQClient, gateway: SQClient) -> None:
    client.enq_many(["a", "b", "c"])
    deadly = Deadly(gateway, 2, answered=True)
    with pytest.raises(Died):
        Move(client, gateway, "default").run()
    assert deadly.requests == 3
    move = Move(client, gateway, "default")
    move.run()
    assert (move.moved, move.resumed) == (3, 3)
    assert bodies(gateway) == [b"a", b"b", b"c"]


@pytest.mark.slow
def test_from_a_cluster(gateway: SQClient, other: SQClient) -> None:
    """It cannot enqueue and ack in one step: messages go one by one."""
    gateway.enq_many(["a", "b", "c"], headers={"key": "value"})
    move = Move(gateway, other, "default")
    move.run(wait=5)
    assert move.moved == 3
    assert seen(other, "default") == [(body, 0, {"key": "value"}) for body in (b"a", b"b", b"c")]
    assert gateway.counts().ready == 0


def test_from_a_client_without_a_server(other: SQClient) -> None:
    with LocalSQClient() as client:
        client.enq_many(["a", "b"])
        Move(client, other, "default").run()
        assert bodies(other) == [b"a", b"b"]
