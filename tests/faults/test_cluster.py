"""The cluster's engine on three servers, with two gateways behind a balancer: faults 52 to 57 under load.

What CI runs is short; the long forms (`soak`) have every fault, and their figures are in docs/cluster.md.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path

import pytest
from support.nats_servers import NatsServer
from support.network import Network

from stiqueue.engines.jetstream.names import CONSUMER

from .checker import Expectation, Verdict
from .disks import LoopDisk
from .history import CLUSTER, SECOND
from .processes import process_state, wait_until
from .run import Run
from .site import STREAM, Site


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_52_57_gateways_and_servers_are_killed_in_turn(run: Run) -> None:
    """The short form: nothing is lost or invented, whoever dies."""
    with Site(run).start() as site:
        site.load()
        site.kill_gateways()
        site.fault("leader killed", site.leader().kill, site.start_dead)
        site.fault("follower killed", site.follower().kill, site.start_dead)
        site.finish(confirmed=1_000)


@pytest.mark.slow
def test_56_the_leader_is_cut_off(run: Run) -> None:
    """Its link is down until the others serve: the minority confirms nothing, and when it is back all is there once."""
    with Network(3) as network, Site(run, network).start() as site:
        site.load(producers=2, consumers=2)
        alone = site.cluster.nodes.index(site.leader())
        site.fault("leader cut off", lambda: network.cut(alone), network.heal)
        site.finish(confirmed=500)


# -- the long forms ---------------------------------------------------------------------------------------------------


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_52_57_long(run: Run) -> None:
    """Each server in turn, a stopped leader, all at once, a rolling restart, and each gateway."""
    with Site(run).start() as site:
        site.load(producers=10, consumers=5, rate=5)
        site.kill_gateways()
        for node in site.cluster.nodes:
            role = "leader" if node is site.leader() else "follower"
            site.fault(f"{node.name} killed, a {role}", node.kill, site.start_dead)
        leader = site.leader()
        site.fault("leader stopped", leader.pause, leader.resume)

        def all_down() -> None:
            for node in site.cluster.nodes:
                node.kill()
            site.start_dead()

        site.fault("all killed and started again", all_down)

        def roll() -> None:
            for node in site.cluster.nodes:
                node.terminate()
                node.start()
                site.cluster.wait_ready()

        site.fault("rolling restart", roll)
        site.finish(confirmed=5_000)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_53_two_of_three_down(run: Run) -> None:
    """Nothing is confirmed by one server alone; when a second is back, all is served again."""
    with Site(run).start() as site:
        site.load()
        run.inject.begins(CLUSTER, "two-killed")
        for node in site.cluster.nodes[1:]:
            node.kill()
        run.inject.took_effect(CLUSTER, "two-killed")
        down = time.monotonic_ns()
        time.sleep(12)
        quorum = time.monotonic_ns()
        # What was on its way when they died may have been confirmed by all three.
        assert [t for t in site.times() if down + SECOND < t < quorum] == []
        site.cluster.nodes[1].start(ready=False)
        site.wait_for_service("two servers", since=quorum)
        back = next(t for t in site.times() if t > quorum)
        print(f"service {(back - quorum) / SECOND:.1f} s after a second server was started")
        site.start_dead()
        site.cluster.wait_ready()
        run.inject.healed(CLUSTER)
        site.finish(confirmed=500)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("sync", ["always", ""], ids=["synced", "control that must lose"])
def test_54_power_cut_of_all_at_once(run: Run, sync: str) -> None:
    """Three disks lose all that was not synced, under load. Without syncing the same must lose."""
    with contextlib.ExitStack() as stack:
        disks = []
        for number in range(3):
            directory = run.directory / f"disk-{number}"
            directory.mkdir()
            disks.append(stack.enter_context(LoopDisk(directory, 128)))
        site = stack.enter_context(Site(run, disks=[disk.path for disk in disks], sync=sync))
        site.start(*([] if sync else ["--unsafe"]))
        site.load()
        wait_until(lambda: len(site.times()) >= 400, 120, "messages that can be lost", every=0.5)
        nodes = site.cluster.nodes
        run.inject.begins(CLUSTER, "power-cut")
        for node in nodes:
            node.pause()
        for node in nodes:
            assert node.process is not None
            wait_until(lambda pid=node.process.pid: process_state(pid) == "T", 30, "stopped")  # type: ignore[misc]
        for disk in disks:
            disk.freeze()
        for node in nodes:
            node.kill()
        run.stop_clients()
        for disk in disks:
            disk.cut_power()
        run.inject.took_effect(CLUSTER, "power-cut")
        site.start_dead()
        site.cluster.wait_ready()
        run.inject.healed(CLUSTER)
        run.drain(seconds=120)
        result = run.verdict(Expectation(confirmed=300))
        if sync:
            assert result.verdict is Verdict.GOOD, result.summary()
        else:
            assert any(name.startswith("lost") for name in result.errors), "the test is blind"


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_55_damaged_files_of_one_server(run: Run) -> None:
    """A bit flips in one server while it is down: the others have the messages, and nothing altered is delivered."""
    with Site(run).start() as site:
        site.load()
        for _ in range(5):
            node = site.follower()

            def damage(node: NatsServer = node) -> None:
                node.kill()
                flip(run, some_file(run, node))
                node.start(ready=False)

            site.fault(f"damage at {node.name}", damage)
            site.fault(f"{node.name} is to lead", site.leader().kill, site.start_dead)
        site.finish(confirmed=1_000)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_55_what_waits_in_damaged_files_is_delivered_unaltered(run: Run) -> None:
    """A server that finds damage when it starts says that it is behind, until it has the rest from the others."""
    with Site(run).start() as site:
        for number, damage in enumerate((flip, cut) * 2, 1):
            run.fill(1_500, name=f"fill{number}", size=300)
            node = site.follower()
            kind = f"{damage.__name__}-{number}"
            run.inject.begins(CLUSTER, kind)
            node.kill()
            damage(run, largest_file(node))
            began = time.monotonic()
            node.start(ready=False)
            run.inject.took_effect(CLUSTER, kind)
            site.cluster.wait_ready()
            site.wait_alike()
            print(f"{damage.__name__} at {node.name}: healthy with all messages after {time.monotonic() - began:.1f} s")
            assert time.monotonic() - began < 60
            run.inject.healed(CLUSTER)
            site.cluster.make_leader(node, STREAM, CONSUMER)
            run.drain()
        run.assert_good(Expectation(confirmed=6_000))


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_55_a_server_that_is_lost_is_replaced_by_an_empty_one(run: Run) -> None:
    """As docs/cluster.md says: the same name, an empty disk; then it leads. Each server in turn, under load."""
    with Site(run).start() as site:
        site.load(producers=4, consumers=2, rate=5)
        for node in site.cluster.nodes:

            def replace(node: NatsServer = node) -> None:
                node.kill()
                shutil.rmtree(node.directory / "store")
                node.start(ready=False)

            site.fault(f"{node.name} replaced", replace)
            site.wait_alike()
            site.fault(f"{node.name} to lead", lambda node=node: site.cluster.make_leader(node, STREAM, CONSUMER))
        site.finish(confirmed=1_000)


def flip(run: Run, path: Path) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[run.random.randrange(len(data))] ^= 1 << run.random.randrange(8)
    path.write_bytes(data)


def cut(run: Run, path: Path) -> None:
    """Cut off a part of a file."""
    path.write_bytes(path.read_bytes()[: run.random.randrange(path.stat().st_size)])


def some_file(run: Run, node: NatsServer) -> Path:
    """Return a file with messages, of the queue or of the servers' own."""
    return run.random.choice([path for path in node.directory.rglob("*.blk") if path.stat().st_size > 100])


def largest_file(node: NatsServer) -> Path:
    """Return the file that has most of the queue's messages."""
    return max(node.directory.rglob(f"{STREAM}/msgs/*.blk"), key=lambda path: path.stat().st_size)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_56_long(run: Run) -> None:
    """Each server cut off in turn, gateways with the minority only, two servers that do not see each other."""
    with Network(3) as network, Site(run, network).start() as site:
        site.load(producers=6, consumers=4, rate=5)
        nodes = site.cluster.nodes
        for number, node in enumerate(nodes):
            role = "leader" if node is site.leader() else "follower"
            site.fault(f"{node.name} cut off, a {role}", lambda number=number: network.cut(number), network.heal)

        def strand() -> None:
            """Leave the gateways with a server that is alone; nothing may be confirmed."""
            for other in (1, 2):
                network.part(0, other)
                network.part(other, None)
            parted = time.monotonic_ns()
            time.sleep(20)
            assert [t for t in site.times() if t > parted + SECOND] == []
            network.heal()

        site.fault("gateways with the minority for 20 s", strand)
        leader = site.leader()
        first = nodes.index(leader)
        second = nodes.index(site.follower())
        site.fault("leader and a follower parted", lambda: network.part(first, second), network.heal)
        site.finish(confirmed=2_000)
