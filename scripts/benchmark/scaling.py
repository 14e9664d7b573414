"""How StiQueue scales with consumers and messages: memory, medians, and the time until ready after a restart."""

from __future__ import annotations

import resource
import time

from benchmark.clients.base import Unsupported
from benchmark.hands import Failed, Hand
from benchmark.measure import Stage
from benchmark.peers import BARE, SYSTEMS, NotAvailable, Server

SMALL = 100
SETTLING_SECONDS = 0.5
PROBES_AT_A_TIME = 10


def memory(stage: Stage) -> None:
    """Bytes of server memory for each queued 100-byte message, on a server that was just started."""
    for system in stage.systems:
        if system in BARE:
            continue
        try:
            stage.results.add("memory.bytes", system, _bytes_per_message(stage, system))
        except (Failed, NotAvailable) as error:
            stage.failed("memory", system, error)


def _bytes_per_message(stage: Stage, system: str) -> float:
    server = Server(SYSTEMS[system].command)
    hand = stage.new_hand(system, server)
    try:
        number = stage.scale.stored
        try:
            hand.do("enq_batches", number=1000, size=SMALL, batch=1000)
            before = server.rss()
            hand.do("enq_batches", number=number, size=SMALL, batch=1000)
        except Unsupported:
            number = number // 10
            hand.do("enq_each", number=100, size=SMALL)
            before = server.rss()
            hand.do("enq_each", number=number, size=SMALL)
        time.sleep(SETTLING_SECONDS)
        return (server.rss() - before) / number
    finally:
        hand.close()
        server.stop()


def crowd(stage: Stage) -> None:
    """Idle consumers: the cost of a call with them, their memory, and how fast messages reach them all."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for system in ("stiqueue", "stiqueue-durable"):
        if system not in stage.systems:
            continue
        try:
            _crowd(stage, system)
        except (Failed, NotAvailable) as error:
            stage.failed("crowd", system, error)


def _crowd(stage: Stage, system: str) -> None:
    servers = {number: Server(SYSTEMS[system].command) for number in stage.scale.crowds}
    crowds = {number: stage.new_hand(system, server, "crowd") for number, server in servers.items()}
    hands = {number: stage.new_hand(system, server, "bystander") for number, server in servers.items()}
    results = stage.results
    try:
        for number, server in servers.items():
            hands[number].do("medians", number=5)
            crowds[number].do("grow", number=1)
            before = server.rss()
            crowds[number].do("grow", number=max(1, number))
            crowds[number].do("collect", number=min(5, number), patience=5.0)
            if number >= 100:
                results.add(f"crowd.bytes-{number}", system, (server.rss() - before) / number)
        if most := max(servers):
            for _ in range(stage.scale.rounds):
                _reach_all(stage, system, crowds[most], hands[most], min(stage.scale.arrivals, most))
        # The servers take turns, so that other load on this machine affects them equally.
        for _ in range(max(stage.scale.rounds, stage.scale.samples // PROBES_AT_A_TIME)):
            for number in servers:
                for call, median in hands[number].do("medians", number=PROBES_AT_A_TIME).result.items():
                    results.add(f"crowd.{call}-{number}", system, median)
                if number:
                    crowds[number].do("collect", number=min(number, PROBES_AT_A_TIME), patience=5.0)
    finally:
        for hand in (*crowds.values(), *hands.values()):
            hand.close(patience=20.0)
        for server in servers.values():
            server.stop()


def _reach_all(stage: Stage, system: str, crowd: Hand, hand: Hand, number: int) -> None:
    """Measure the time until `number` messages have reached as many consumers, one each."""
    began = time.monotonic()
    hand.do("enq_batches", number=number, size=SMALL, batch=1000)
    reached = crowd.do("collect", number=number).result
    if reached["number"] != number:
        raise Failed(f"{reached['number']} of {number} messages arrived")
    stage.results.add(f"crowd.reach-{number}-seconds", system, reached["last"] - began)


def backlog(stage: Stage) -> None:
    """A long backlog: memory, disk, medians against an empty server, and the time until ready after a restart."""
    for system in ("stiqueue", "stiqueue-durable"):
        if system not in stage.systems:
            continue
        for number in stage.scale.backlogs:
            if system == "stiqueue" and number > stage.scale.stored:
                continue  # all of it would be in memory
            try:
                _backlog(stage, system, number)
            except (Failed, NotAvailable) as error:
                stage.failed("backlog", system, error)


def _backlog(stage: Stage, system: str, number: int) -> None:
    durable = system == "stiqueue-durable"
    servers = {"empty": Server(SYSTEMS[system].command), "full": Server(SYSTEMS[system].command)}
    hands = {name: stage.new_hand(system, server) for name, server in servers.items()}
    results, name = stage.results, f"backlog-{number}"
    try:
        filling = hands["full"].do("enq_batches", number=number, size=SMALL, batch=1000).seconds
        results.add(f"{name}.fill", system, number / filling)
        results.add(f"{name}.rss", system, servers["full"].rss())
        for hand in hands.values():
            hand.do("enq_each", number=50, size=SMALL)
            hand.do("deq_each", number=50)
        for _ in range(max(3, stage.scale.rounds)):
            for which, hand in hands.items():
                results.add(f"{name}.enq-{which}", system, hand.do("enq_each", number=100, size=SMALL).result["p50"])
                results.add(f"{name}.deq-{which}", system, hand.do("deq_each", number=100).result["p50"])
        if durable:
            results.add(f"{name}.disk", system, servers["full"].disk_bytes() / (number * SMALL))
            servers["full"].halt()
            began = time.monotonic()
            servers["full"].start()
            ready = hands["full"].do("ready").result
            results.add(f"{name}.restart-seconds", system, time.monotonic() - began)
            if ready != number:
                raise Failed(f"{ready} of {number} messages are there after a restart")
            results.add(f"{name}.rss-restarted", system, servers["full"].rss())
    finally:
        for hand in hands.values():
            hand.close()
        for server in servers.values():
            server.stop()
