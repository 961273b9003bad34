"""Progress of a run as JSON lines: written by the round loop, read by whoever watches.

One line is one event: `{"time": ..., "event": "reply", "site": ..., ...}`. A line is flushed whole, so a
reader in another process never meets half of one that ends in a newline.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any


class Event(StrEnum):
    """What can happen in a run."""

    STARTED = "started"
    """The round loop runs; sites, rounds, digest."""
    PRETRAINING = "pretraining"
    """The initial weights are being trained on public images; done, of (steps)."""
    JOINED = "joined"
    """A site answered the handshake; site."""
    NOT_JOINED = "not-joined"
    """A site declined or was refused in the handshake; site, state, reason."""
    ROUND = "round"
    """A round began; round, of."""
    REPLY = "reply"
    """What became of a site in this round; round, site, state, reason, train_loss."""
    EVALUATED = "evaluated"
    """Sites' scores of a round's weights are in; round, measured_on, mean_macro_f1, worst_macro_f1, worst_site."""
    AGGREGATED = "aggregated"
    """A round's weights are made and saved; round, seconds."""
    CLOSING = "closing"
    """Every site is asked to measure the final model."""
    FINISHED = "finished"
    """The result is written; outcome, seconds."""
    FAILED = "failed"
    """The run stopped without finishing; code, problem, fix."""


class EventLog:
    """Appends events to a run's `events.jsonl`.

    Args:
        path: The file.
        keep: Append to what is there; else it is emptied, since a run folder holds one run.
    """

    def __init__(self, path: Path, *, keep: bool = False) -> None:
        self._path = path
        path.open("a" if keep else "w").close()

    def write(self, event: Event, **fields: object) -> None:
        """Append one event with the current time."""
        line = json.dumps({"time": round(time.time(), 3), "event": event.value, **fields})
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")


class EventReader:
    """Follows a run's `events.jsonl` from its beginning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def new(self) -> list[Mapping[str, Any]]:
        """Return the events written since the last call; none while the file does not exist."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            data = stream.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
