"""What `semc-client` shows while it runs: a status line on a terminal, plain lines in a container's log."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

from client.progress import Progress

if TYPE_CHECKING:
    from rich.status import Status


class Console:
    """Shows events as lines and, on a terminal, what goes on as one changing line.

    A line nobody can be shown (a closed pipe, a full disk behind it) is dropped: taking part does not depend on it.

    Args:
        site: Name of the hospital, in front of every line.
    """

    def __init__(self, site: str) -> None:
        self._site = site
        self._status: Status | None = None

    def __enter__(self) -> Console:
        if sys.stderr.isatty():
            from rich.console import Console as RichConsole

            self._status = RichConsole(stderr=True).status(f"{self._site}: starting")
            self._status.start()
        return self

    def __exit__(self, *_error: object) -> None:
        if self._status is not None:
            self._status.stop()

    def say(self, text: str) -> None:
        """Print one line that stays."""
        with contextlib.suppress(OSError):
            if self._status is None:
                print(f"{self._site}: {text}", file=sys.stderr, flush=True)
            else:
                self._status.console.print(f"{self._site}: {text}", markup=False, highlight=False)

    def now(self, text: str) -> None:
        """Say what goes on at present; shown on a terminal only."""
        if self._status is not None:
            with contextlib.suppress(OSError):
                self._status.update(f"{self._site}: {text}")

    def show(self, progress: Progress) -> None:
        """Tell an operator what the training process reports."""
        match progress.phase:
            case "training" if progress.loss is not None:
                self.say(f"round {progress.round_number}: trained, loss {progress.loss:.4f}")
            case "training":
                self.now(f"round {progress.round_number}: training {progress.done}/{progress.total} steps")
            case "waiting":
                self.say(f"round {progress.round_number}: waiting for the GPU, another site trains on it")
            case "evaluating":
                self.now(f"round {progress.round_number}: evaluating")
            case "loading":
                self.now("a study has arrived: loading data and network")
            case "refused":
                self.say(f"declined {progress.text}")
            case "pushing":
                self.now("sending the reply")
            case "idle":
                self.now("waiting for the coordinator")
