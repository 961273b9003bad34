"""Follow a run to its end: show its events, and know when nothing would come of waiting.

Progress comes from the run's own events, which cost nothing to read. A round loop that was killed writes no event, but
lets go of the run's lock; the coordinator then brings it back (server/run_keeper.py). Flower's command line's own
`--stream` ends with 0 on a failed run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from semc.exit_codes import ExitCode, SemcError
from semc.reporting import StudyResult
from server.events import Event, EventReader
from server.health import Health, ask_health
from server.home import Home
from server.run_folder import RunFolder
from server.run_state import RunState, run_state

Watch = Callable[[Mapping[str, Any]], None]

_LOOK_SECONDS: Final = 0.1
_STATE_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 90.0
"""A dead round loop or SuperLink is brought back by the coordinator's supervisor well within this time."""


def follow(home: Home, folder: RunFolder, events: EventReader, watch: Watch) -> StudyResult:
    """Wait for the end of a run, also while the coordinator brings back a round loop that died.

    Args:
        home: The coordinator's home.
        folder: The run's folder.
        events: Where to begin reading its events.
        watch: Called with every event.

    Returns:
        The result of a run that reached its end.

    Raises:
        SemcError: What stopped the run; RUN_FAILED where it left no word and was not brought back,
            SERVER_UNREACHABLE where the coordinator did not answer for a while.
    """
    next_look = 0.0
    silent_since: float | None = None
    while True:
        for event in events.new():
            watch(event)
            if event["event"] == Event.FAILED:
                raise SemcError(ExitCode(event["code"]), event["problem"], event["fix"])
            if event["event"] == Event.FINISHED and event["outcome"].startswith("complete"):
                return folder.result()
        now = time.monotonic()
        if now >= next_look:
            next_look = now + _STATE_SECONDS
            problem = _trouble(home, folder)
            silent_since = (silent_since or now) if problem is not None else None
            if problem is not None and silent_since is not None and now - silent_since > _PATIENCE_SECONDS:
                raise problem
        time.sleep(_LOOK_SECONDS)


def _trouble(home: Home, folder: RunFolder) -> SemcError | None:
    """Return why nothing would come of waiting, if that lasts; None where the run is in good hands."""
    state = run_state(folder)
    if state is RunState.RUNNING:
        return None
    if ask_health(home.endpoint().health_address) is not Health.SERVING:
        return SemcError(
            ExitCode.SERVER_UNREACHABLE,
            "The coordinator of this home does not answer.",
            "start it with `semc-server up`, then go on with `semc-server resume`",
        )
    if state is RunState.WAITING:
        return None
    return SemcError(
        ExitCode.RUN_FAILED,
        "The run ended without a result.",
        "read the end of executor.log in the home's logs folder, then `semc-server resume`",
    )
