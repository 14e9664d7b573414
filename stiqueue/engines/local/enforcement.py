"""Applies settings to queues.

Not thread-safe: guarded by the engine's lock.
"""

from __future__ import annotations

from collections.abc import Sequence

from stiqueue.engines.clock import Clock
from stiqueue.engines.local.consumer import Queue
from stiqueue.engines.local.timer import Timer
from stiqueue.message import Counts
from stiqueue.queue_settings import QueueSettings, SettingsReport
from stiqueue.rules.policies import Policies, Policy, covers


class Enforcement:
    """The settings of one engine, and their effect on its queues."""

    def __init__(self, clock: Clock, timer: Timer[Queue | None], defaults: QueueSettings) -> None:
        """Start with the `defaults` for all queues."""
        self._clock = clock
        self._timer = timer
        self._policies = Policies(defaults)

    def restore(self, policies: Sequence[Policy]) -> None:
        """Restore the settings in a log."""
        for policy in policies:
            self._policies.put(policy)

    def change(self, change: QueueSettings, reset: Sequence[str]) -> tuple[Policy, QueueSettings]:
        """Change the settings of one name or pattern; return them for the log and for the caller. Call `each_of` next.

        Raises:
            SettingFixed: the settings file sets it.
            LimitReached: there are too many names and patterns.
        """
        wall_ms = self._wall_ms()
        policy = self._policies.changed(change, reset, wall_ms)
        self._policies.put(policy)
        return policy, policy.at(wall_ms)

    def fix(self, settings: Sequence[QueueSettings]) -> list[str]:
        """Replace the settings of the file; return the names and patterns to pass to `each_of`."""
        return self._policies.fix(settings)

    def report(self, queue: str) -> SettingsReport:
        """Return all settings; with `queue`, those that match it and those that apply to it."""
        return self._policies.report(queue, self._wall_ms())

    def obey(self, queue: Queue) -> None:
        """Apply the current settings to `queue`."""
        wall_ms = self._wall_ms()
        policy = self._policies.policy(queue.name, wall_ms)
        until_ms = policy.paused_until_ms
        queue.obey(policy.settings, self._clock.monotonic() + (until_ms - wall_ms) / 1000 if until_ms else None)
        if until_ms:
            queue.alarm = queue.backlog.next_due()
            self._timer.set(queue.name, queue.alarm, queue)

    def each_of(self, patterns: Sequence[str], queues: Sequence[Queue]) -> list[Queue]:
        """Apply the settings to the queues that one of `patterns` matches, and return these."""
        found = [queue for queue in queues if any(covers(pattern, queue.name) for pattern in patterns)]
        for queue in found:
            self.obey(queue)
        return found

    def resume(self, queue: Queue, now: float) -> None:
        """Apply the settings to `queue` again if its pause has ended."""
        resumes_at = queue.backlog.resumes_at
        if resumes_at is not None and resumes_at <= now:
            self.obey(queue)

    def no_counts(self, name: str) -> Counts:
        """Return the counts of a queue that does not exist, which may be paused."""
        wall_ms = self._wall_ms()
        settings = self._policies.policy(name, wall_ms).at(wall_ms)
        return Counts(name, paused=bool(settings.paused), paused_ms=round((settings.resume_after or 0.0) * 1000))

    def _wall_ms(self) -> int:
        return round(self._clock.wall() * 1000)
