"""A site's training process as its supervisor sees it: whether it is ready, and what it has in hand."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Final

from client import worker
from client.child import Child
from client.console import Console
from client.environment import SITE_FILE, flower_environment
from client.log_file import LogFile
from client.progress import from_line
from semc.config import SiteConfig
from semc.exit_codes import ExitCode, SemcError

_START_SECONDS: Final = 300.0
_LOOK_SECONDS: Final = 0.1
_IN_HAND: Final = ("pulling", "working", "pushing")


class WorkerProcess:
    """The training process of one site, run after run.

    Args:
        site_file: The hospital's YAML.
        site: Its content.
        secret_file: What it shares with the SuperNode.
        log: Receives its log lines.
        console: Shows its progress.
    """

    def __init__(
        self,
        site_file: Path,
        site: SiteConfig,
        secret_file: Path,
        log: LogFile,
        console: Console,
    ) -> None:
        self._site_file, self._site, self._secret_file = site_file, site, secret_file
        self._log, self._console = log, console
        self._child: Child | None = None
        self._ready = threading.Event()
        self._stage = ""
        self.answers = 0
        """Replies sent by all runs together."""
        self.lost_task = threading.Event()
        """Set when a task broke in the middle and its SuperNode may wait for it for ever."""

    @property
    def has_task(self) -> bool:
        """Whether it has, or had when it ended, a message in hand."""
        return self._stage in _IN_HAND

    def start(self, port: int, stop: threading.Event) -> None:
        """Start it and wait until its libraries are loaded, or until told to stop.

        Args:
            port: Loopback port of the SuperNode.
            stop: Ends the wait.

        Raises:
            SemcError: INTERNAL where it ends first, or takes five minutes.
        """
        self._stage = ""
        self._ready.clear()
        self.lost_task.clear()
        environment = flower_environment(self._site.state_directory / "flower" / "worker")
        environment |= {SITE_FILE: str(self._site_file), "OMP_NUM_THREADS": str(self._site.threads)}
        arguments = [f"127.0.0.1:{port}", str(self._secret_file), str(self._site.poll_seconds)]
        self._child = Child(worker.MODULE, arguments, environment, self._log, self._read)
        deadline = time.monotonic() + _START_SECONDS
        while not self._ready.wait(_LOOK_SECONDS):
            if stop.is_set():
                return
            if self._child.ended() is not None or time.monotonic() > deadline:
                raise SemcError(
                    ExitCode.INTERNAL,
                    "The training process does not start.",
                    "read the last lines of logs/worker.log in the state directory",
                )

    def ended(self) -> int | None:
        """Return its exit status once it has ended."""
        return None if self._child is None else self._child.ended()

    def ask_to_end(self) -> None:
        """Send SIGTERM."""
        if self._child is not None:
            self._child.ask_to_end()

    def end(self, grace_seconds: float) -> None:
        """End it: SIGTERM, and SIGKILL once the grace is over."""
        if self._child is not None:
            self._child.end(grace_seconds)

    def _read(self, line: str) -> bool:
        progress = from_line(line)
        if progress is None:
            return False
        match progress.phase:
            case "ready":
                self._ready.set()
            case "lost":
                self.lost_task.set()
            case "idle" | "pulling" | "working" | "pushing":
                if progress.phase == "idle" and self._stage == "pushing" and not self.lost_task.is_set():
                    self.answers += 1
                self._stage = progress.phase
        self._console.show(progress)
        return True
