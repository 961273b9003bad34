"""How a run ended, for whoever reads its folder later: a run that goes on may still have the result of a stop."""

from __future__ import annotations

from typing import Final

from semc.exit_codes import SemcError
from semc.reporting import StudyResult
from semc.reporting.result import OUTCOMES
from server.run_folder import RunFolder
from server.run_state import RunState, run_state

_OPEN: Final = frozenset({RunState.WAITING, RunState.RUNNING, RunState.INTERRUPTED})


def settled_result(folder: RunFolder) -> StudyResult | None:
    """Return a run's result; None where it has none yet, or goes on after it had stopped.

    Raises:
        SemcError: CHECKPOINT_INVALID where the result is damaged.
    """
    if not folder.result_file.is_file():
        return None
    result = folder.result()
    stale = not result.outcome.startswith("complete") and run_state(folder) in _OPEN
    return None if stale else result


def outcome_in_words(folder: RunFolder) -> str:
    """Say how a run ended or stands, in words that nobody takes for a whole study where it is none."""
    try:
        result = settled_result(folder)
    except SemcError:
        return "Unknown: its result cannot be read."
    if result is None:
        return f"Not finished ({run_state(folder)}): this is of what it had reached before."
    return OUTCOMES[result.outcome]
