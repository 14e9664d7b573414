"""The settings of queues, the same for all gateways: one entry of a key-value bucket in the cluster.

The cluster keeps two of them itself, at the consumer of each queue: a pause, and how many messages may be leased. The
gateways apply the others.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from stiqueue.arguments import check_whole
from stiqueue.engines.jetstream.answers import NobodyThere, Refused, read_answer
from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.engines.jetstream.names import Names
from stiqueue.engines.jetstream.refusals import NAME_IN_USE, STREAM_NOT_FOUND, refusal
from stiqueue.errors import InvalidRequest, NotSupported, StoreError, Unavailable
from stiqueue.limits import EVERYTHING, MAX_SETTING, check_settings
from stiqueue.queue_settings import QueueSettings, SettingsReport
from stiqueue.rules.policies import Policies, Policy

LOAD_SECONDS = 20.0
"""How long a starting gateway waits for a cluster that elects a leader, or starts as well."""
CALL_SECONDS = 3.0
"""Timeout for an answer: while there is no leader, none comes."""
RETRY_SECONDS = 0.25
TRIES = 10
"""How often a change is tried again because another gateway has made one at the same moment."""
MAX_CACHED = 10_000
"""Most queues whose settings are remembered ready for use."""

NO_MESSAGE = 10037
CHANGED_MEANWHILE = {10071, 10164}
"""The bucket's entry is no longer the one that a change was based on."""
BOUNDS = ("max_messages", "max_bytes")
AT_CONSUMERS = {"paused", "max_leased", EVERYTHING}
"""The settings that the cluster keeps at the consumers of queues; a reset of everything concerns them too."""


class Pause(NamedTuple):
    """The pause of a queue."""

    until_ms: int
    """When it ends by itself, in milliseconds since 1970; 0: only when somebody resumes the queue."""


class SharedSettings:
    """One gateway's copy of the settings. `version` tells which."""

    def __init__(
        self, cluster: Cluster, names: Names, replicas: int, defaults: QueueSettings, logger: logging.Logger
    ) -> None:
        """Know nothing but the `defaults` until `load`; keep changes with `replicas`."""
        self._cluster = cluster
        self._names = names
        self._replicas = replicas
        self._defaults = defaults
        self._policies = Policies(defaults)
        self._cached: dict[str, QueueSettings] = {}
        self._changing = asyncio.Lock()
        """Held for a change, so that those of one gateway do not get in each other's way. Protects `_has_bucket`."""
        self._loading = asyncio.Lock()
        """Held until an answer of the cluster is used, so that none is used after a later one. Taken while `_changing`
        is held."""
        self._logger = logger
        self._has_bucket = False
        self.revision = 0
        """The number of the entry that this gateway knows; 0: there are no settings. After somebody has removed the
        bucket, the numbers begin anew."""
        self.version = ""
        """Tells whether two gateways know the same entry."""

    # -- asking -------------------------------------------------------------------------------------------------------

    def of(self, queue: str) -> QueueSettings:
        """Return the settings of a queue, each with a value. Do not ask them for a pause, which may have ended."""
        found = self._cached.get(queue)
        if found is None:
            if len(self._cached) >= MAX_CACHED:
                self._cached.clear()
            found = self._cached[queue] = self._policies.policy(queue, wall_ms()).settings
        return found

    def pause_of(self, queue: str) -> Pause | None:
        """Return the pause of a queue; None: it is not paused."""
        policy = self._policies.policy(queue, wall_ms())
        return Pause(policy.paused_until_ms) if policy.settings.paused else None

    def holds_back(self, queue: str) -> bool:
        """Whether messages of a queue may be ready that nobody may take now."""
        return bool(self.of(queue).max_leased) or self.pause_of(queue) is not None

    def report(self, queue: str) -> SettingsReport:
        """See `stiqueue.rules.engine.Engine.settings`."""
        return self._policies.report(queue, wall_ms())

    # -- learning and changing ----------------------------------------------------------------------------------------

    async def load_patiently(self) -> None:
        """Read the settings from the cluster; wait if it elects a leader.

        Raises:
            StoreError: it did not answer in time.
        """
        give_up = time.monotonic() + LOAD_SECONDS
        while True:
            try:
                await self.load()
            except Unavailable as error:
                if time.monotonic() > give_up:
                    raise StoreError(f"cannot read the settings of queues: {error}") from error
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def load(self) -> None:
        """Read the settings from the cluster.

        Raises:
            Unavailable: it does not answer now.
        """
        async with self._loading:
            try:
                question = json.dumps({"last_by_subj": self._names.settings}).encode()
                subject = f"$JS.API.STREAM.MSG.GET.{self._names.settings_stream}"
                answer = read_answer(await self._cluster.ask(subject, question, None, CALL_SECONDS))
            except Refused as error:
                if error.number not in (STREAM_NOT_FOUND, NO_MESSAGE):
                    raise refusal(error) from error
                self._has_bucket = error.number == NO_MESSAGE
                self._use(0, b"")
            else:
                self._has_bucket = True
                stored = answer["message"]
                self._use(int(stored["seq"]), base64.b64decode(stored.get("data", "")))

    def _use(self, revision: int, body: bytes) -> None:
        """Obey the settings of an entry; without a body, as after its deletion, there are none."""
        version = f"{revision}-{zlib.crc32(body)}"
        if version == self.version:
            return
        self.revision, self.version = revision, version
        try:
            policies, faults = _read(body)
        except _Unreadable as error:  # what is known stays
            self._logger.error("the settings of queues in the cluster cannot be read, and are ignored: %s", error)
            return
        if faults:
            self._logger.error(
                "%d settings of queues in the cluster are ignored; the first: %s", len(faults), faults[0]
            )
        self._policies = Policies(self._defaults)
        for policy in policies:
            self._policies.put(policy)
        self._cached.clear()

    async def change(self, change: QueueSettings, reset: Sequence[str]) -> QueueSettings:
        """Store a change; return all settings of its name or pattern. Other gateways do not know it yet.

        Raises:
            NotSupported: a cluster has no such setting.
            LimitReached: there are too many names and patterns.
            Unavailable: whether it is stored is unknown.
        """
        for name in BOUNDS:
            if getattr(change, name) is not None:
                raise NotSupported(f"{name}: a cluster has the bounds that its gateways were started with")
        async with self._changing:
            for _ in range(TRIES):
                await self.load()
                policy = self._policies.changed(change, reset, wall_ms())
                policies = Policies(self._defaults)
                for each in (*self._policies, policy):
                    policies.put(each)
                if await self._store(list(policies)):
                    return policy.at(wall_ms())
        raise Unavailable("other gateways change settings at the same moment")

    async def _store(self, policies: Sequence[Policy]) -> bool:
        """Store these policies instead of those of `revision`; return False if others were stored meanwhile."""
        if not self._has_bucket:
            await self._make_bucket()
        body = _written(policies)
        if len(body) > self._cluster.max_payload // 2:
            raise InvalidRequest(f"settings: {len(body):,} bytes are too many for the cluster", "BAD_SETTING")
        expected = {"Nats-Expected-Last-Subject-Sequence": str(self.revision)}
        async with self._loading:
            try:
                answer = read_answer(await self._cluster.ask(self._names.settings, body, expected))
            except Refused as error:
                if error.number in CHANGED_MEANWHILE:
                    return False
                raise refusal(error) from error
            except NobodyThere:
                self._has_bucket = False  # unless there is no leader now
                raise
            self._use(int(answer["seq"]), body)
        return True

    async def _make_bucket(self) -> None:
        """Create the bucket as NATS's own tools would, so that they can read it."""
        config: dict[str, Any] = {
            "subjects": [self._names.settings_stream_subjects],
            "storage": "file",
            "num_replicas": self._replicas,
            "max_msgs_per_subject": 1,
            "discard": "new",
            "deny_delete": True,
            "allow_rollup_hdrs": True,
            "allow_direct": True,
        }
        name = self._names.settings_stream
        try:
            await self._cluster.call(f"STREAM.CREATE.{name}", name=name, **config)
        except Refused as error:
            if error.number != NAME_IN_USE:  # a gateway with another number of replicas was faster
                raise refusal(error) from error
        self._has_bucket = True


def concerns_consumers(change: QueueSettings, reset: Sequence[str]) -> bool:
    """Whether a change is of settings that the cluster keeps at consumers."""
    return not AT_CONSUMERS.isdisjoint([*reset, *(name for name, _ in change.items())])


def wall_ms() -> int:
    """Return the time in milliseconds since 1970. Pauses end by the clocks of the cluster, which must agree."""
    return int(time.time() * 1000)


def _written(policies: Sequence[Policy]) -> bytes:
    def table(policy: Policy) -> dict[str, Any]:
        settings = {name: value for name, value in asdict(policy.settings).items() if value is not None}
        return settings | ({"paused_until_ms": policy.paused_until_ms} if policy.paused_until_ms else {})

    return json.dumps([table(policy) for policy in policies], separators=(",", ":")).encode()


class _Unreadable(Exception):
    """Raised for an entry that no gateway has written."""


def _read(body: bytes) -> tuple[list[Policy], list[str]]:
    """Return the policies of an entry, and what is wrong with those left out.

    Raises:
        _Unreadable: it has none.
    """
    try:
        tables = json.loads(body or b"[]")
    except (ValueError, RecursionError) as error:
        raise _Unreadable(error) from error
    if not isinstance(tables, list):
        raise _Unreadable("not a list")
    policies: list[Policy] = []
    faults: list[str] = []
    for table in tables:
        try:
            policies.append(_policy(table))
        except (TypeError, AttributeError, InvalidRequest) as error:
            faults.append(str(error))
    return policies, faults


def _policy(table: dict[str, Any]) -> Policy:
    until_ms = table.pop("paused_until_ms", 0)
    check_whole("paused_until_ms", until_ms, 0, MAX_SETTING, "BAD_SETTING")
    # A newer gateway may know more settings.
    known = {name: value for name, value in table.items() if name in QueueSettings.__dataclass_fields__}
    settings = QueueSettings(**known)
    check_settings(settings)
    return Policy(settings, until_ms)
