"""One supervised child process of the coordinator."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from server.process import START_FAILED

_STOP_SECONDS: Final = 8.0
_QUICK_DEATH_SECONDS: Final = 10.0


@dataclass
class Child:
    """A process that is started, watched, started again and ended.

    Args:
        name: For messages.
        command: Program and arguments.
        log: File its output is appended to.
        may_end: Whether its end is the normal end of a run; only a failed start then counts against it.
    """

    name: str
    command: Sequence[str]
    log: Path
    may_end: bool
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    failures: int = 0

    def start(self, environment: dict[str, str]) -> None:
        """Start it, or start it again."""
        self.started = time.monotonic()
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(
                self.command, env=environment, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )

    def has_ended(self) -> bool:
        """Whether it was started and runs no more."""
        return self.process is not None and self.process.poll() is not None

    def count_failure(self) -> None:
        """Judge how it ended; an end that is no failure forgives those before."""
        assert self.process is not None
        quick = time.monotonic() - self.started < _QUICK_DEATH_SECONDS
        failed = self.process.returncode == START_FAILED if self.may_end else quick
        self.failures = self.failures + 1 if failed else 0

    def end(self) -> None:
        """Ask it to stop, and kill it where it does not follow."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
