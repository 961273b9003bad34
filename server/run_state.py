"""How a deployed run stands, told by its folder alone: by its last word and by whether its round loop is alive."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from server.events import Event, EventReader
from server.run_folder import RunFolder


class RunState(StrEnum):
    """Where a run stands."""

    WAITING = "waiting"
    """Submitted; the coordinator has not begun with it."""
    RUNNING = "running"
    """Its round loop is alive."""
    INTERRUPTED = "interrupted"
    """Its round loop died without a word: a killed process, a reboot, a run that Flower gave up."""
    STOPPED = "stopped"
    """Its round loop stopped and said why; it may go on once that is mended."""
    FINISHED = "finished"
    """It reached its end, complete or on a subset."""


_WORDS: Final = (Event.SUBMITTED, Event.STARTED, Event.FAILED, Event.FINISHED)


def run_state(folder: RunFolder) -> RunState:
    """Return the state of a run; one that was never submitted counts as stopped."""
    alive = folder.is_locked
    # Read after the lock: a loop that ends in between has left its word by now.
    words = [event for event in EventReader(folder.events_file).new() if event["event"] in _WORDS]
    last = words[-1] if words else None
    match last["event"] if last else None:
        case Event.FINISHED if str(last["outcome"]).startswith("complete"):  # type: ignore[index]
            return RunState.FINISHED
        case None | Event.FAILED | Event.FINISHED:
            return RunState.RUNNING if alive else RunState.STOPPED
        case Event.SUBMITTED if not alive:
            return RunState.WAITING
        case _:
            return RunState.RUNNING if alive else RunState.INTERRUPTED
