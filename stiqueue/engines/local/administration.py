"""The settings of queues, as an operator changes and reads them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from stiqueue.engines.clock import Clock
from stiqueue.engines.local.change import Change, telling
from stiqueue.engines.local.consumer import Wakes, call
from stiqueue.engines.local.dispatch import Dispatch
from stiqueue.engines.local.enforcement import Enforcement
from stiqueue.engines.local.log import Log
from stiqueue.engines.local.queues import Queues
from stiqueue.limits import check_pattern, check_settings
from stiqueue.queue_settings import QueueSettings, SettingsReport
from stiqueue.rules.later import Answer

A = TypeVar("A", bound=Answer[QueueSettings])


class Administration:
    """Changes the settings of one engine's queues, which obey at once. Thread-safe."""

    def __init__(
        self,
        lock: threading.Lock,
        clock: Clock,
        enforcement: Enforcement,
        queues: Queues,
        dispatch: Dispatch,
        log: Log | None,
    ) -> None:
        """Change the settings of `queues`, and write them to `log` if there is one; `lock` is the engine's."""
        self._lock = lock
        self._clock = clock
        self._enforcement = enforcement
        self._queues = queues
        self._dispatch = dispatch
        self._log = log

    def configure(self, change: QueueSettings, reset: Sequence[str], later: Callable[[], A]) -> QueueSettings | A:
        """Change settings; return those of the name or pattern, or with a log an answer made by `later`."""
        check_settings(change, reset)
        change = replace(change, queue=check_pattern(change.queue))
        woken: Wakes = []
        with self._lock:
            self._queues.check_open()
            policy, settings = self._enforcement.change(change, reset)
            answer: QueueSettings | A = settings
            if self._log is not None:
                answer = waiting = later()
                self._log.append(Change(policy=policy, tell=telling(waiting, settings)))
            self._enforce([change.queue], woken)
        call(woken)
        return answer

    def report(self, queue: str) -> SettingsReport:
        """See `stiqueue.rules.engine.Engine.settings`."""
        with self._lock:
            return self._enforcement.report(queue)

    def fix(self, settings: Sequence[QueueSettings]) -> None:
        """See `stiqueue.rules.engine.Engine.fix`."""
        woken: Wakes = []
        with self._lock:
            self._enforce(self._enforcement.fix(settings), woken)
        call(woken)

    def _enforce(self, patterns: Sequence[str], woken: Wakes) -> None:
        """Apply settings to all queues that one of `patterns` names. The lock is held."""
        touched = self._enforcement.each_of(patterns, self._queues.all())
        self._dispatch.after(touched, self._clock.monotonic(), woken)
