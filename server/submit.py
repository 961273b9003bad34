"""`semc-server run` and `resume`: make the run's folder, hand the bundle to Flower, follow the run to its end.

Progress comes from the run's own events, which cost nothing to read. A round loop that was killed writes no event, but
lets go of the run's lock; the coordinator then brings it back (server/run_keeper.py). Flower's command line's own
`--stream` ends with 0 on a failed run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from semc.config import StudyConfig
from semc.exit_codes import ExitCode, SemcError
from semc.privacy.limits import check_plan
from semc.reporting import StudyResult
from server.bundle import write_bundle
from server.control import Control
from server.events import Event, EventLog, EventReader
from server.health import Health, ask_health
from server.home import Home
from server.registry import Registry
from server.run_folder import RunFolder
from server.run_state import RunState, run_state

Watch = Callable[[Mapping[str, Any]], None]

_LOOK_SECONDS: Final = 0.1
_STATE_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 90.0
"""A dead round loop or SuperLink is brought back by the coordinator's supervisor well within this time."""


def submit(home: Home, study: StudyConfig) -> RunFolder:
    """Start a run of a study.

    Returns:
        The run's folder.

    Raises:
        SemcError: BUDGET_REFUSED where the plan costs patients more than the study itself allows,
            SERVER_UNREACHABLE where the coordinator does not run, KEY_UNREGISTERED where a named site is not
            enrolled, RUN_FAILED, DISK.
    """
    check_plan(study)
    require_coordinator(home)
    registry = Registry.load(home.root).restricted_to(study.federation.sites)
    name = home.new_run_name(study.name, study.digest())
    folder = home.run(name)
    assert folder is not None
    folder.create(study, registry)
    _hand_over(home, folder, study)
    return folder


def resubmit(home: Home, folder: RunFolder) -> None:
    """Have the coordinator go on with a run from its checkpoint and the replies on disk.

    Args:
        home: The coordinator's home.
        folder: A run whose round loop is not alive.

    Raises:
        SemcError: USAGE where the run has finished, ALREADY_RUNNING where its round loop is alive, SERVER_UNREACHABLE,
            RUN_FAILED, DISK, and what its study file is refused for.
    """
    match run_state(folder):
        case RunState.FINISHED:
            raise SemcError(
                ExitCode.USAGE,
                f"Run '{folder.root.name}' has finished: {folder.result().outcome.replace('_', ' ')}.",
                "see it with `semc-server report`, or start another run",
            )
        case RunState.RUNNING:
            raise SemcError(
                ExitCode.ALREADY_RUNNING,
                f"Run '{folder.root.name}' is running.",
                "follow it with `semc-server resume`",
            )
    require_coordinator(home)
    if folder.flower_run is not None:
        with suppress(SemcError):  # it has ended, mostly
            Control(home).stop(folder.flower_run)
    _hand_over(home, folder, folder.study())


def _hand_over(home: Home, folder: RunFolder, study: StudyConfig) -> None:
    """Give the run's bundle to Flower; a run that it does not take says so in its events."""
    write_bundle(folder.bundle, study, folder.root.name)
    control, events = Control(home), EventLog(folder.events_file)
    control.connect()
    events.write(Event.SUBMITTED)  # before the round loop, which may begin at once
    try:
        folder.note_flower_run(control.submit(folder.bundle))
    except SemcError as error:
        events.write(Event.FAILED, code=int(error.code), problem=error.problem, fix=error.fix)
        raise


def require_coordinator(home: Home) -> None:
    """Check that the coordinator of this home serves.

    Raises:
        SemcError: SERVER_UNREACHABLE.
    """
    if ask_health(home.endpoint().health_address) is not Health.SERVING:
        raise SemcError(
            ExitCode.SERVER_UNREACHABLE,
            "The coordinator of this home does not answer.",
            "start it with `semc-server up` and wait until it says that it is ready",
        )


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


def unfinished_run(home: Home, name: str | None) -> RunFolder:
    """Return a run by name, or the latest that has not finished.

    Raises:
        SemcError: CONFIG_NOT_FOUND where there is none.
    """
    if name is not None:
        return find_run(home, name)
    unfinished = [folder for folder in home.all_runs() if run_state(folder) is not RunState.FINISHED]
    if not unfinished:
        raise SemcError(
            ExitCode.CONFIG_NOT_FOUND,
            "No run of this home waits to be gone on with.",
            "see `semc-server status`, or start one with `semc-server run STUDY`",
        )
    return unfinished[-1]


def find_run(home: Home, name: str | None) -> RunFolder:
    """Return a run by name, or the latest.

    Raises:
        SemcError: CONFIG_NOT_FOUND where there is none.
    """
    folder = home.run(name) if name is not None else home.latest_run()
    if folder is None or not folder.root.is_dir():
        raise SemcError(
            ExitCode.CONFIG_NOT_FOUND,
            f"There is no run '{name}'." if name else "There is no run yet.",
            "see `semc-server status` for the runs of this home, or start one with `semc-server run STUDY`",
        )
    return folder


def write_report(folder: RunFolder, out: Path) -> Path:
    """Write a run's report as one HTML page; return where.

    Raises:
        SemcError: CHECKPOINT_INVALID where the run has no result.
    """
    from semc.reporting.report import build_report

    build_report(folder.result(), out)
    return out
