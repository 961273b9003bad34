"""What is to happen inside the processes of a federation under test: who stops, at which call of which stage."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from uuid import uuid4

Role = Literal["worker", "supernode", "executor"]
INJECTED = Path(__file__).with_name("injected")
"""Folder for PYTHONPATH; its `sitecustomize.py` carries a plan out."""


@dataclass(frozen=True)
class Stop:
    """One process waits at one call, once, until it is released or killed, or its time is over."""

    role: Role
    stage: str
    """A stage that `injected/sitecustomize.py` knows for the role."""
    site: str = ""
    """Name of the hospital; "" = whoever comes first."""
    call: int = 1
    """Which call of the stage's function, counted from when the process reads the plan."""
    action: Literal["wait", "bend"] = "wait"
    """bend = multiply what the function returns by a hair, instead of waiting."""
    seconds: float = 90.0
    """Longest wait."""


class Plan:
    """The plan file of one federation, and the marks that its processes leave.

    Args:
        folder: For the file and the marks.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "plan.json"
        self._folder = folder
        self._marker = self._release = folder / "none"

    def arm(self, stops: Sequence[Stop]) -> None:
        """Replace the plan; all stops share one mark: the first process that comes to one leaves it."""
        name = uuid4().hex
        self._marker, self._release = self._folder / f"{name}.mark", self._folder / f"{name}.release"
        content = [
            {**vars(stop), "marker": str(self._marker), "release": str(self._release)} for stop in stops
        ]
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(content), encoding="utf-8")
        part.replace(self.file)

    def stopped(self) -> int | None:
        """Return the process that waits at a stop, None while none has come to one."""
        try:
            text = self._marker.read_text(encoding="utf-8")
        except FileNotFoundError:
            return None
        return int(text) if text.endswith("\n") else None

    def wait_stopped(self, seconds: float = 120.0) -> int:
        """Wait until a process stands at a stop; return its number."""
        end = time.monotonic() + seconds
        while (process := self.stopped()) is None:
            assert time.monotonic() < end, "no process came to the point where it was to be stopped"
            time.sleep(0.02)
        return process

    def release(self) -> None:
        """Let the stopped process go on, and stop no other."""
        self._release.touch()
        self.file.unlink(missing_ok=True)
