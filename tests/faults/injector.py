"""Does harm to processes and proxies: writes down what it did and when, and makes sure that it took effect."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from .processes import ClientProcess, ServerProcess, process_state, wait_until
from .recorder import Recorder

EFFECT_SECONDS = 5.0
"""How long a fault may take to show."""

Victim = ServerProcess | ClientProcess


class Injector:
    """Injects faults; each stands in the history before it begins and again when it was seen to have taken effect."""

    def __init__(self, recorder: Recorder) -> None:
        """Write to `recorder`."""
        self._recorder = recorder
        self._broken: list[tuple[str, str]] = []
        """Targets and kinds of faults that are not healed."""

    def begins(self, target: str, kind: str) -> int:
        """Write that a fault is about to begin; return when, in nanoseconds of the monotonic clock."""
        self._broken.append((target, kind))
        return self._recorder.write("fault", target, "invoke", kind=kind)

    def took_effect(self, target: str, kind: str) -> None:
        """Write that the effect of a fault was seen."""
        self._recorder.write("fault", target, "ok", kind=kind)

    def healed(self, target: str) -> None:
        """Write that all faults of a target are over."""
        for broken in [each for each in self._broken if each[0] == target]:
            self._broken.remove(broken)
            self._recorder.write("fault", target, "healed", kind=broken[1])

    def kill(self, *victims: Victim) -> int:
        """End processes with SIGKILL, all at once; return when it began."""
        begin = min(self.begins(victim.name, "sigkill") for victim in victims)
        for victim in victims:
            os.kill(victim.pid, signal.SIGKILL)
        for victim in victims:
            assert victim.process is not None
            code = victim.process.wait(EFFECT_SECONDS)
            assert code == -signal.SIGKILL, f"{victim.name} had ended with {code} before it was killed"
            self.took_effect(victim.name, "sigkill")
        return begin

    def terminate(self, server: ServerProcess, number: int = signal.SIGTERM) -> int:
        """Ask a server to stop; return when. Whether and when it does is for the test to see."""
        begin = self.begins(server.name, "sigterm")
        os.kill(server.pid, number)
        self.took_effect(server.name, "sigterm")
        return begin

    def stop(self, victim: Victim) -> int:
        """Stop a process with SIGSTOP; return when."""
        begin = self.begins(victim.name, "sigstop")
        os.kill(victim.pid, signal.SIGSTOP)
        wait_until(lambda: process_state(victim.pid) == "T", EFFECT_SECONDS, f"{victim.name} stopped")
        self.took_effect(victim.name, "sigstop")
        return begin

    def resume(self, victim: Victim) -> None:
        """Let a stopped process go on."""
        os.kill(victim.pid, signal.SIGCONT)
        wait_until(lambda: process_state(victim.pid) not in ("T", ""), EFFECT_SECONDS, f"{victim.name} resumed")
        self.healed(victim.name)

    def restart(self, server: ServerProcess, options: Sequence[str] | None = None) -> None:
        """Start a dead server again, on the same port and data."""
        if options is not None:
            server.options = list(options)
        server.start()
        self.healed(server.name)
