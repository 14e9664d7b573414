"""The settings of queues by name and pattern; the most specific applies. Pure data.

Not thread-safe: guarded by the engine's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from stiqueue.errors import LimitReached, SettingFixed
from stiqueue.limits import EVERYTHING
from stiqueue.message import DEAD_SUFFIX
from stiqueue.queue_settings import SETTINGS, QueueSettings, SettingsReport

MAX_SETTINGS = 1_000
"""The most names and patterns with settings."""
NONE = QueueSettings(EVERYTHING, False, None, 0, 0, 0, 0.0, 0.0, 0, "")
"""Every setting with its neutral value: no limit, no pause."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Stored settings: a pause ends at a point in time."""

    settings: QueueSettings
    """Without `resume_after`."""
    paused_until_ms: int = 0
    """When the pause ends by itself, in milliseconds since 1970; 0: only when somebody resumes the queue."""

    @classmethod
    def of(cls, settings: QueueSettings, wall_ms: int) -> Policy:
        """Return `settings` as stored at `wall_ms`."""
        if settings.resume_after is None:
            return cls(settings)
        return cls(replace(settings, resume_after=None), wall_ms + max(1, round(settings.resume_after * 1000)))

    def at(self, wall_ms: int) -> QueueSettings:
        """Return the settings at a point in time, without a pause that has ended."""
        if not self.settings.paused or not self.paused_until_ms:
            return self.settings
        left = self.paused_until_ms - wall_ms
        return replace(
            self.settings, paused=None if left <= 0 else True, resume_after=left / 1000 if left > 0 else None
        )


class Policies:
    """Settings by name and pattern: those made while the server runs, those of the settings file, and the defaults.

    A setting of the file precedes all that were made, however specific these are.
    """

    def __init__(self, defaults: QueueSettings) -> None:
        """Start with the `defaults`; a setting missing there is neutral."""
        self._defaults = Policy(replace(NONE, **dict(defaults.items())))
        self._made: dict[str, Policy] = {}
        self._fixed: dict[str, Policy] = {}

    # -- changing -----------------------------------------------------------------------------------------------------

    def changed(self, change: QueueSettings, reset: Sequence[str], wall_ms: int) -> Policy:
        """Return the policy of one name or pattern after a change, without storing it.

        Raises:
            SettingFixed: the settings file sets it.
            LimitReached: there are too many names and patterns.
        """
        name = change.queue
        dropped = SETTINGS if EVERYTHING in reset else reset
        for setting in [*(setting for setting, _ in change.items()), *(reset if EVERYTHING not in reset else ())]:
            fixed = self._fixing(name, setting)
            if fixed is not None:
                raise SettingFixed(f"{setting}: the server's settings file sets it for {fixed}")
        if name not in self._made and len(self._made) >= MAX_SETTINGS and change:
            raise LimitReached(
                f"there are settings for {MAX_SETTINGS:,} names and patterns, the limit", "TOO_MANY_SETTINGS"
            )
        old = self._made.get(name, Policy(QueueSettings(name)))
        now = old.at(wall_ms)
        kept = {setting: value for setting, value in now.items() if setting not in dropped}
        new = Policy.of(change, wall_ms)
        until_ms = new.paused_until_ms if change.paused is not None else old.paused_until_ms if "paused" in kept else 0
        return Policy(QueueSettings(name, **{**kept, **dict(new.settings.items())}), until_ms)

    def put(self, policy: Policy) -> None:
        """Store `policy` for its name or pattern; without settings, delete it."""
        name = policy.settings.queue
        if policy.settings:
            self._made[name] = policy
        else:
            self._made.pop(name, None)

    def fix(self, settings: Iterable[QueueSettings]) -> list[str]:
        """Replace the settings of the file; return the names and patterns of the old and the new ones."""
        before, self._fixed = self._fixed, {each.queue: Policy(each) for each in settings}
        return [*before, *self._fixed]

    def __iter__(self) -> Iterator[Policy]:
        """Iterate over the policies that were made while the server runs."""
        return iter(self._made.values())

    def _fixing(self, name: str, setting: str) -> str | None:
        """Return the name or pattern of the file that fixes a setting for all queues of `name`, or None."""
        for pattern, policy in self._fixed.items():
            if getattr(policy.settings, setting) is not None and covers(pattern, name):
                return pattern
        return None

    # -- asking -------------------------------------------------------------------------------------------------------

    def policy(self, queue: str, wall_ms: int) -> Policy:
        """Return the policy of a queue at a point in time, with a value for every setting."""
        if not self._made and not self._fixed and not queue.endswith(DEAD_SUFFIX):
            return self._defaults
        found: dict[str, Any] = {}
        until_ms = 0
        for policy in (*_matching(self._fixed, queue), *_matching(self._made, queue)):
            for setting, value in policy.at(wall_ms).items():
                if setting not in found:
                    found[setting] = value
                    if setting == "paused" and value:
                        until_ms = policy.paused_until_ms
        if queue.endswith(DEAD_SUFFIX):  # a dead letter stays in its queue, however often it is delivered
            found |= {"max_attempts": 0, "dead_letter_queue": ""}
        return Policy(replace(self._defaults.settings, queue=queue, **found), until_ms)

    def report(self, queue: str, wall_ms: int) -> SettingsReport:
        """Return all settings; with `queue`, those that match it and those that apply to it."""
        made, fixed = (
            [
                settings
                for name, policy in sorted(policies.items())
                if (not queue or covers(name, queue)) and (settings := policy.at(wall_ms))
            ]
            for policies in (self._made, self._fixed)
        )
        return SettingsReport(made, fixed, self.policy(queue, wall_ms).at(wall_ms) if queue else None)


def _matching(policies: dict[str, Policy], queue: str) -> Iterator[Policy]:
    """Iterate over the policies of a queue, the most specific first."""
    if queue in policies:
        yield policies[queue]
    matching = [name for name in policies if "*" in name and covers(name, queue)]
    for name in sorted(matching, key=lambda name: (name.count("*") - len(name), name)):
        yield policies[name]


def covers(pattern: str, name: str) -> bool:
    """Whether `pattern` matches the queue `name`; if `name` is a pattern, whether it matches all of its queues."""
    if "*" not in pattern:
        return pattern == name
    # Only a * of `pattern` matches a * in `name`, and it also matches whatever that one stands for.
    first, *middle, last = pattern.split("*")
    if len(name) < len(first) + len(last) or not (name.startswith(first) and name.endswith(last)):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True
