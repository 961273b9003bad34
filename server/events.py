"""Progress of a run as JSON lines: written by the round loop, read by whoever watches.

One line is one event: `{"time": ..., "event": "reply", "site": ..., ...}`. A line is flushed whole, so a
reader in another process never meets half of one that ends in a newline.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any


class Event(StrEnum):
    """What can happen in a run."""

    SUBMITTED = "submitted"
    """The run was handed to the coordinator, the first time or to go on."""
    STARTED = "started"
    """The round loop runs; sites, rounds, digest."""
    RESUMED = "resumed"
    """It goes on from a checkpoint; round, software_before (versions that were others then)."""
    CHECKPOINT_DAMAGED = "checkpoint-damaged"
    """A checkpoint cannot be read and the one before it is used; checkpoint."""
    REPLY_DAMAGED = "reply-damaged"
    """A kept answer cannot be read and the site is asked again; round, site."""
    PRETRAINING = "pretraining"
    """The initial weights are being trained on public images; done, of (steps)."""
    JOINED = "joined"
    """A site answered the handshake; site."""
    NOT_JOINED = "not-joined"
    """A site declined or was refused in the handshake; site, state, reason."""
    ROUND = "round"
    """A round began; round, of."""
    REPLY = "reply"
    """What became of a site in this round; round, site, state, stage, reason, train_loss."""
    REPEAT = "repeat"
    """A site is sent its message again; round, site, state, stage, reason."""
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
        path: The file; a run that goes on appends to what it wrote before.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, event: Event, **fields: object) -> None:
        """Append one event with the current time, whole or not at all.

        Progress is for whoever watches: a disk that takes no more of it must not end a study.
        """
        line = json.dumps({"time": round(time.time(), 3), "event": event.value, **fields}) + "\n"
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                end = os.fstat(descriptor).st_size
                if end and os.pread(descriptor, 1, end - 1) != b"\n":  # a power cut left half a line
                    line = "\n" + line
                if os.write(descriptor, line.encode()) < len(line.encode()):
                    os.ftruncate(descriptor, end)
            finally:
                os.close(descriptor)


def events_of(path: Path, kinds: Collection[Event]) -> list[Mapping[str, Any]]:
    """Return a run's events of some kinds, oldest first; cheap also where there are many others."""
    if not path.is_file():
        return []
    marks = [f'"event": "{kind.value}"'.encode() for kind in kinds]
    lines = path.read_bytes().split(b"\n")[:-1]
    found = [_read(line) for line in lines if any(mark in line for mark in marks)]
    return [event for event in found if event is not None and event["event"] in kinds]


class EventReader:
    """Follows a run's `events.jsonl`.

    Args:
        path: The file.
        from_now: Leave out what is there already.
    """

    def __init__(self, path: Path, *, from_now: bool = False) -> None:
        self._path = path
        self._offset = path.stat().st_size if from_now and path.is_file() else 0

    def new(self) -> list[Mapping[str, Any]]:
        """Return the events written since the last call; none while the file does not exist."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            data = stream.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return [event for line in whole.split(b"\n") if (event := _read(line)) is not None]


def _read(line: bytes) -> Mapping[str, Any] | None:
    """Return one event; None for what a power cut left of one."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None
