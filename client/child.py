"""A supervised child process: its output goes to a rotating log, its end is noticed, it ends when told.

Its output is read whatever happens here: a child whose pipe is full would stand still. Start it from the main thread:
the kernel's signal to the children of the dead (`client/lifeline.py`) comes when the starting thread ends.

Children are started with `python -P -m`, so that a stray folder named `client` in the working directory is
never imported, and with Flower's switches in their environment before Flower is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping

from client.environment import SUPERVISOR
from client.log_file import LogFile


class Child:
    """One run of one program of this package.

    Args:
        module: What to run, e.g. `client.worker`.
        arguments: Its command line.
        environment: Added to this process's own.
        log: Receives every line it prints.
        on_line: Told each line, in a thread; returns True for lines that are not for the log. Must not raise.
    """

    def __init__(
        self,
        module: str,
        arguments: list[str],
        environment: Mapping[str, str],
        log: LogFile,
        on_line: Callable[[str], bool],
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, SUPERVISOR: str(os.getpid())},
            text=True,
            errors="replace",
        )
        self._log, self._on_line = log, on_line
        self._asked = False
        self._reader = threading.Thread(target=self._read, name=f"{module} output", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process number."""
        return self._process.pid

    def ended(self) -> int | None:
        """Return the exit status once the process has ended and all it printed has been read."""
        status = self._process.poll()
        if status is not None:
            self._reader.join(timeout=1)
        return status

    def ask_to_end(self) -> None:
        """Send SIGTERM, once: for many programs a second one means to drop everything."""
        if self._process.poll() is None and not self._asked:
            self._asked = True
            self._process.terminate()

    def end(self, grace_seconds: float) -> None:
        """End the process: SIGTERM, and SIGKILL once the grace is over."""
        self.ask_to_end()
        try:
            self._process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout=1)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not self._on_line(line):
                self._log.line(line.rstrip("\n"))
