"""The ready messages of a queue that have a key. Not thread-safe: guarded by the engine's lock.

Messages of one key form a strand, and only one of them at a time is leased. The free strands are ordered by their next
messages, so a consumer gets the oldest message whose key is free, however many strands there are and however many
messages wait behind a busy key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stiqueue.rules.entry import Entry
from stiqueue.rules.key_window import KeyWindow
from stiqueue.rules.lane import Window
from stiqueue.rules.places import Places
from stiqueue.rules.run import Run
from stiqueue.rules.run_index import RunIndex
from stiqueue.rules.strand import Place, Stored, Strand


class Strands(dict[str, Strand]):
    """A strand for each key that has ready messages or is held up."""

    def __init__(self, window: Window | None, expired: set[int]) -> None:
        """Start empty; `window` is how much of all strands is in memory, None: all of it.

        `expired` are the ids of messages that expired and are skipped, of these and of others.
        """
        super().__init__()
        self._in_memory = KeyWindow(window)
        self._expired = expired
        self.messages = 0
        """How many messages the strands have, in memory or stored, expired ones included."""
        self.stored = 0
        """How many of them only the journal has."""
        self.blocked = 0
        """How many messages, without expired ones, wait until another one of their key is settled."""
        self.priorities: set[int] = set()
        """The priorities that messages had so far."""
        self._runs = RunIndex()
        self._places = Places()

    def open(self, key: str) -> Strand:
        """Return the strand of a key; create it if it does not exist."""
        strand = self.get(key)
        if strand is None:
            strand = self[key] = Strand(key)
        return strand

    # -- coming in ----------------------------------------------------------------------------------------------------

    def add(self, run: Run, size: int) -> bool:
        """Put new messages of `size` bytes behind all others of their key; return whether they are in memory."""
        properties = run.properties
        strand = self.open(properties.key)
        stored = strand.stored_of(properties.priority)
        if stored is None and self._in_memory.is_full(strand):
            stored = strand.store(properties.priority, 0, run.first_id - 1)
        self._count(strand, len(run))
        if stored is None:
            self._keep(strand, run, size)
        else:
            stored.messages += len(run)
            self.stored += len(run)
            self.priorities.add(properties.priority)
        self._offer(strand)
        return stored is None

    def put_back(self, entry: Entry) -> None:
        """Put a message at its place by id, before all newer ones of its key and priority."""
        strand = self.open(entry.properties.key)
        self._count(strand, 1)
        self._keep(strand, Run.of(entry), entry.size)
        self._offer(strand)

    def restore(self, priority: int, key: str, messages: int, edge: int) -> None:
        """Count messages of a key that only the journal has, with ids above `edge`."""
        strand = self.open(key)
        self._count(strand, messages)
        strand.store(priority, messages, edge)
        self.priorities.add(priority)
        self.stored += messages
        self._offer(strand)

    def begin_load(self, priority: int, key: str, runs: list[Run]) -> None:
        """Count the next stored messages as read; remove those already adopted from `runs`. `load` must follow."""
        strand = self[key]
        stored = strand.stored_of(priority)
        assert stored is not None
        number = stored.count_read(runs)
        self.stored -= number
        self._count(strand, -number)

    def load(self, priority: int, key: str, runs: list[Run]) -> None:
        """Take in those of the messages read that are good."""
        strand = self[key]
        self._count(strand, sum(map(len, runs)))
        for run in runs:
            self._keep(strand, run, run.size)
        self._settle(strand, priority)

    def adopt(self, entry: Entry) -> bool:
        """Put a message that was read alone at its place in memory, if only the journal had it; return whether so."""
        priority = entry.properties.priority
        strand = self.get(entry.properties.key)
        if strand is None or not (stored := strand.stored_of(priority)) or not stored.adopt(entry.id):
            return False
        self.stored -= 1
        self._keep(strand, Run.of(entry), entry.size)
        self._settle(strand, priority)
        return True

    def _settle(self, strand: Strand, priority: int) -> None:
        """Note that stored messages were read."""
        strand.drop_empty(priority)
        if strand.stored:  # of other priorities, too
            self._in_memory.note_low(strand)
        self._offer(strand)

    def _count(self, strand: Strand, number: int) -> None:
        """Count more messages."""
        self.messages += number
        strand.waiting += number
        if strand.held:
            self.blocked += number

    def _keep(self, strand: Strand, run: Run, size: int) -> None:
        """Put messages in memory."""
        strand.add(run, size)
        self._in_memory.messages += len(run)
        self._in_memory.bytes += size
        self.priorities.add(run.properties.priority)
        self._runs.add(run)

    # -- going out ----------------------------------------------------------------------------------------------------

    def hold(self, key: str) -> None:
        """Let no other message of `key` go until `release`: one is leased, or was given back with a delay."""
        strand = self.open(key)
        if not strand.held:
            self.blocked += strand.waiting
            self._places.forget(strand)
        strand.held += 1

    def release(self, keys: Iterable[str]) -> None:
        """End a `hold` of each of `keys`: a message of it is settled for good, or back at its place."""
        places: list[Place] = []
        for key in keys:
            strand = self[key]
            strand.held -= 1
            if strand.held:
                continue
            self.blocked -= strand.waiting
            if strand.stored or strand.expired:
                self._offer(strand)
            elif (run := strand.run) is not None:
                places.append((strand.rank, run.first_id, strand))
            else:
                del self[key]
        self._places.put_all(places)

    def _offer(self, strand: Strand) -> None:
        """Let a strand that is free stand where its next message does; forget it when it has none."""
        if strand.held:
            return
        if strand.expired:
            self._skip_expired(strand)
        place = strand.next()
        if place is None:
            self._places.forget(strand)
            if not strand.stored:  # else some is being read
                del self[strand.key]
        elif strand.place is None or strand.place[:2] != place[:2]:
            self._places.put(place)

    def first(self) -> Place | None:
        """Return the first place at which a free strand stands; None when all are held up."""
        return self._places.first()

    def head(self) -> Entry | None:
        """Return the next message; None when there is none, or when it must be loaded first."""
        place = self.first()
        if place is None or place[2].waits_for_load() or place[2].run is None:
            return None
        return place[2].run.head()

    @property
    def waits_for_load(self) -> bool:
        """Whether the next message is not in memory."""
        place = self.first()
        return place is not None and place[2].waits_for_load() is not None

    def take(self, most: int, room: float, room_after: float) -> tuple[list[Entry], int]:
        """Remove the next messages of up to `most` strands, and hold these; return them and their bytes.

        Args:
            most: how many at most.
            room: how many bytes the first message may have.
            room_after: how many bytes they may have together if there are several.
        """
        taken: list[Entry] = []
        used = blocked = 0
        places = self._places.take(most)
        for place in places:
            strand = place[2]
            run = strand.run
            if run is None or (strand.stored and strand.waits_for_load()):
                break
            if strand.bytes > room and run.head_size > room:
                break
            entry = run.pop_head()
            _, body, _, properties = entry
            size = len(body) + properties.headers_bytes
            if not run:
                strand.next_run()
                self._runs.emptied()
            strand.bytes -= size
            strand.waiting -= 1
            strand.held = 1
            blocked += strand.waiting
            if strand.stored:
                self._in_memory.note_low(strand)
            taken.append(entry)
            used += size
            room = room_after - used
        if len(taken) < len(places):
            self._places.put_all(places[len(taken) :])
        self.blocked += blocked
        self.messages -= len(taken)
        self._in_memory.messages -= len(taken)
        self._in_memory.bytes -= used
        return taken, used

    def expire(self, entry: Entry) -> None:
        """Count a ready message as expired; remove the expired ones that are the next of their key."""
        strand = self[entry.properties.key]
        strand.expired += 1
        strand.waiting -= 1
        if strand.held:
            self.blocked -= 1
            self._skip_expired(strand)
        else:
            self._offer(strand)

    def _skip_expired(self, strand: Strand) -> None:
        """Remove expired messages up to the first that has not."""
        while strand.expired and (run := strand.run) is not None and run.first_id in self._expired:
            entry = run.pop_head()
            if not run:
                strand.next_run()
            self._expired.discard(entry.id)
            strand.expired -= 1
            strand.bytes -= entry.size
            self._leave_memory(run, entry)
            self.messages -= 1
            if strand.stored:
                self._in_memory.note_low(strand)

    def _leave_memory(self, run: Run, entry: Entry) -> None:
        """Count a message that was removed from `run`."""
        self._in_memory.messages -= 1
        self._in_memory.bytes -= entry.size
        if not run:
            self._runs.emptied()

    # -- single messages ----------------------------------------------------------------------------------------------

    def find(self, message_id: int) -> Entry | None:
        """Return a message in memory by its id; None: it is not here."""
        run = self._runs.find(message_id)
        return None if run is None else run.get(message_id)

    def remove(self, entry: Entry) -> None:
        """Remove a message in memory, wherever it stands."""
        run, strand = self._runs.find(entry.id), self[entry.properties.key]
        assert run is not None
        before = run.remove(entry.id)
        strand.remove(entry, before)
        if before is not None:
            self._runs.add(before)
        self._leave_memory(run, entry)
        self._count(strand, -1)
        self._offer(strand)

    def remove_spent(self, attempts: int) -> list[Entry]:
        """Remove and return the messages in memory that had so many attempts and have not expired."""
        runs = [run for strand in self.values() for run in strand.each_run() if run.attempt >= attempts]
        spent = [entry for run in runs for entry in run.entries() if entry.id not in self._expired]
        for entry in spent:
            self.remove(entry)
        return spent

    def hungry(self) -> Iterator[tuple[int, str, Stored, int]]:
        """Iterate over (priority, key, what is stored, how many) for which the journal is to be asked for more."""
        return self._in_memory.hungry(self._places)

    def after(self, priority: int, message_id: int) -> Iterator[Entry]:
        """Iterate over the messages of a priority in memory with greater ids, in order."""
        return self._runs.after(priority, message_id)
