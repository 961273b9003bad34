"""How a deployed run stands, told by its folder alone: by its last word and by whether its round loop is alive."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from server.events import Event, events_of
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
    words = events_of(folder.events_file, _WORDS)
    if any(_is_the_end(event) for event in words):
        return RunState.FINISHED  # whatever is said later: a finished run stays what it is
    if alive:
        return RunState.RUNNING
    match words[-1]["event"] if words else None:
        case None | Event.FAILED | Event.FINISHED:
            return RunState.STOPPED
        case Event.SUBMITTED:
            return RunState.WAITING
        case _:  # a loop that began after the look at the lock is alive
            return RunState.RUNNING if folder.is_locked else RunState.INTERRUPTED


def has_stopped(folder: RunFolder) -> bool:
    """Whether the last word is the end of a round loop: nobody has asked for the run since."""
    words = events_of(folder.events_file, _WORDS)
    return bool(words) and words[-1]["event"] in (Event.FAILED, Event.FINISHED)


def _is_the_end(event: Mapping[str, Any]) -> bool:
    return event["event"] == Event.FINISHED and str(event.get("outcome", "")).startswith("complete")
