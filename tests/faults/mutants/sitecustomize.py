"""Breaks one promise of the server in every Python process of a test, to see that the test notices.

Python imports this module by its name when it starts, where PYTHONPATH has this directory; ``FAULT_MUTANT`` says what
to break.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def sync_off() -> None:
    """Call it on the disk when it is not."""
    from stiqueue.engines.sqlite.store import Store

    real = Store.__init__

    def opened(self: Store, path: Any, sync: bool = True) -> None:
        real(self, path, False)

    Store.__init__ = opened  # type: ignore[method-assign]


def confirm_before_commit() -> None:
    """Answer, then write."""
    from stiqueue.engines.sqlite.journal import Journal

    real = Journal._write

    def written(self: Journal, changes: Any) -> bool:
        self.outcome(changes, None)
        for change in changes:
            change.then = change.tell = None
        return real(self, changes)

    Journal._write = written  # type: ignore[method-assign]


def no_crc() -> None:
    """Take every row for what it was."""
    from stiqueue.engines.sqlite import tables
    from stiqueue.engines.sqlite.damage import remains

    remains.is_right = lambda row: True
    tables.first_wrong = lambda rows: None


def no_scan() -> None:
    """Leave damage in the log to SQLite."""
    from stiqueue.engines.sqlite.damage import wal

    wal.scan = lambda path: wal.WalScan(0, 0, 0, frozenset(range(100_000)))


def no_mark() -> None:
    """Forget how far the file had come."""
    from stiqueue.engines.sqlite.claim import Mark

    Mark.of = staticmethod(lambda path: 0)  # type: ignore[method-assign]


def no_reserve() -> None:
    """Hold no space back for acks."""
    from stiqueue.engines.sqlite.space import Space

    Space._take_reserve = lambda self: True  # type: ignore[method-assign]


def no_lock() -> None:
    """Let two servers have one file, as SQLite by itself would once its locks are dropped."""
    from stiqueue.engines.sqlite import claim

    claim._lock = lambda *arguments: None


def close_after_failed_sync() -> None:
    """Move into the file what may not be on the disk."""
    from stiqueue.engines.sqlite.store import Store

    Store.abandon = Store.close  # type: ignore[method-assign]


def check_opened_for_writing() -> None:
    """Look at a file with a connection that changes it when it closes."""
    from stiqueue.engines.sqlite.damage import checking
    from stiqueue.engines.sqlite.store import Store

    checking.View = Store  # type: ignore[misc]


def _without_option(name: str) -> None:
    """Do not ask gRPC for something."""
    from stiqueue.server import listening

    real = listening.channel_options
    listening.channel_options = lambda settings: [each for each in real(settings) if each[0] != name]


def no_ping_timeout() -> None:
    """Leave the time-out of pings to gRPC, which waits for a minute."""
    _without_option("grpc.http2.ping_timeout_ms")


def shared_port() -> None:
    """Leave it to gRPC whether two servers share a port, which it likes."""
    _without_option("grpc.so_reuseport")


def no_handshake_timeout() -> None:
    """Wait for who says nothing as long as gRPC does."""
    _without_option("grpc.server_handshake_timeout_ms")


def no_stream_limit() -> None:
    """Let one connection have as many calls as it likes."""
    _without_option("grpc.max_concurrent_streams")


def no_lease_number() -> None:
    """Let the lease of an earlier delivery settle a later one: they have the same id."""
    from stiqueue.rules import in_flight

    in_flight.new_lease_ids = lambda number: ["lease"] * number  # type: ignore[attr-defined]


def requeue_at_tail() -> None:
    """Give back to the end of the queue."""
    from stiqueue.rules import backlog
    from stiqueue.rules.run import Run

    real = backlog.Backlog._put_back

    def put_back(self: Any, *arguments: Any, **options: Any) -> None:
        real(self, *arguments, **options)
        for lane in self.ready.lanes.values():
            for entry in sorted(lane.returned):
                lane.append(Run.of(entry), entry.size)
            lane.returned.clear()

    backlog.Backlog._put_back = put_back  # type: ignore[method-assign]


def ignore_cancel() -> None:
    """Give nothing back when a stream ends."""
    from stiqueue.engines.local.consumer import LocalConsumer

    LocalConsumer.close = lambda self: None  # type: ignore[method-assign]


def no_credit() -> None:
    """Send a consumer more than it asked for."""
    from stiqueue.engines.local.consumer import LocalConsumer

    real = LocalConsumer.__init__

    def made(self: Any, *arguments: Any, **options: Any) -> None:
        real(self, *arguments, **options)
        self.prefetch += 1

    LocalConsumer.__init__ = made  # type: ignore[method-assign]


def no_dedup() -> None:
    """Forget requests at once."""
    from stiqueue.rules.recent import Recent

    Recent.get = lambda self, queue, request_id, now: None  # type: ignore[method-assign]


def keys_are_free() -> None:
    """Deliver messages of one key at the same time."""
    from stiqueue.rules.strands import Strands

    Strands.release = lambda self, keys: None  # type: ignore[method-assign]
    real = Strands.take

    def take(self: Any, *arguments: Any) -> Any:
        taken = real(self, *arguments)
        for entry in taken[0]:
            strand = self.open(entry.properties.key)
            strand.held = 0
            self._offer(strand)
        return taken

    Strands.take = take  # type: ignore[method-assign]


def delay_frees_key() -> None:
    """Let others of its key pass a message that was given back with a delay."""
    from stiqueue.rules.unheld import Unheld

    real = Unheld.put_back
    Unheld.put_back = lambda self, entry, now, due, holds=False: real(self, entry, now, due)  # type: ignore[method-assign]


def key_is_free_unwritten() -> None:
    """Deliver the next message of a key before the journal knows that the one before is done."""
    from stiqueue.rules.unheld import Unheld

    real = Unheld.__init__

    def made(self: Any, *arguments: Any, **options: Any) -> None:
        real(self, *arguments, **options)
        self._is_logged = False

    Unheld.__init__ = made  # type: ignore[method-assign]
    Unheld.release = lambda self, leases: free(self, [lease.entry for lease in leases])  # type: ignore[method-assign]
    free = Unheld.free
    Unheld.free = lambda self, entries: None  # type: ignore[method-assign]


def never_unique() -> None:
    """Enqueue a second message with a unique key."""
    from stiqueue.rules.uniques import Uniques

    Uniques.holder = lambda self, *arguments: None  # type: ignore[method-assign]


def unique_for_ever() -> None:
    """Never free a unique key."""
    from stiqueue.rules.uniques import Uniques

    Uniques.free = lambda self, *arguments: None  # type: ignore[method-assign]


def _without_setting(name: str) -> None:
    """Let no queue obey one of its settings."""
    from dataclasses import replace

    from stiqueue.engines.local.consumer import Queue

    real = Queue.obey

    def obey(self: Queue, settings: Any, resumes_at: float | None) -> None:
        real(self, replace(settings, **{name: None}), resumes_at)

    Queue.obey = obey  # type: ignore[method-assign]


def no_pause() -> None:
    """Deliver from a paused queue."""
    _without_setting("paused")


def no_max_leased() -> None:
    """Lease more messages than the queue allows."""
    _without_setting("max_leased")


def no_attempts_of_queue() -> None:
    """Deliver a message again, however often its queue allows it."""
    _without_setting("max_attempts")


def no_ttl_of_queue() -> None:
    """Keep messages without a ttl for ever."""
    _without_setting("ttl")


def no_dead_letter_queue() -> None:
    """Move dead letters to the usual queue."""
    _without_setting("dead_letter_queue")


def any_token() -> None:
    """Take every token for one that is known."""
    from stiqueue.server.access.tokens import Tokens

    Tokens.find = lambda self, token: self._grants[0]  # type: ignore[method-assign]


def any_right() -> None:
    """Let every token do everything."""
    from stiqueue.server.access.tokens import Grant

    Grant.allows = lambda self, right, queue=None: True  # type: ignore[method-assign]


def revoked_streams_go_on() -> None:
    """End no stream when its token is taken away."""
    from stiqueue.server.streams import AllStreams

    AllStreams.end_revoked = lambda self: None  # type: ignore[method-assign]


def drain_takes_new_work() -> None:
    """Go on as before after SIGTERM, until the grace is over."""
    from stiqueue.server.requests import Requests
    from stiqueue.server.streams import Streams

    real = Streams.stop
    Requests.is_draining = property(lambda self: False, lambda self, value: None)  # type: ignore[assignment]
    Streams.stop = lambda self, now=False: real(self, now) if now else None  # type: ignore[method-assign]


def no_size_limit() -> None:
    """Take messages that cannot be delivered."""
    from stiqueue import limits

    limits.check_batch = lambda batch, max_message_bytes: None


_MUTANTS: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (
        sync_off,
        confirm_before_commit,
        no_crc,
        no_scan,
        no_mark,
        no_reserve,
        no_lock,
        close_after_failed_sync,
        check_opened_for_writing,
        no_ping_timeout,
        shared_port,
        no_handshake_timeout,
        no_stream_limit,
        no_lease_number,
        requeue_at_tail,
        ignore_cancel,
        no_credit,
        no_dedup,
        keys_are_free,
        delay_frees_key,
        key_is_free_unwritten,
        never_unique,
        unique_for_ever,
        no_pause,
        no_max_leased,
        no_attempts_of_queue,
        no_ttl_of_queue,
        no_dead_letter_queue,
        any_token,
        any_right,
        revoked_streams_go_on,
        drain_takes_new_work,
        no_size_limit,
    )
}

if os.environ.get("FAULT_MUTANT"):
    _MUTANTS[os.environ["FAULT_MUTANT"]]()
