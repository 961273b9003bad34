"""`semc-server run`: make the run's folder, hand the bundle to Flower, follow the run to its end.

Progress comes from the run's own events, which cost nothing to read. Flower is asked for the run's state now
and then, since a ServerApp that was killed writes no event; its command line's own `--stream` ends with 0 on
a failed run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from semc.config import StudyConfig
from semc.exit_codes import ExitCode, SemcError
from semc.privacy.limits import check_plan
from semc.reporting import StudyResult
from server.bundle import write_bundle
from server.control import Control
from server.events import Event, EventReader
from server.health import Health, ask_health
from server.home import Home
from server.registry import Registry
from server.run_folder import RunFolder

Watch = Callable[[Mapping[str, Any]], None]

_LOOK_SECONDS: Final = 0.1
_STATUS_SECONDS: Final = 30.0
_SILENT_STATUS_SECONDS: Final = 5.0
"""Between two questions while the SuperLink does not answer."""
_PATIENCE_SECONDS: Final = 60.0
"""A dead SuperLink is revived by its supervisor well within this time."""


def submit(home: Home, study: StudyConfig) -> tuple[RunFolder, str]:
    """Start a run of a study.

    Returns:
        The run's folder and Flower's number of the run.

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
    write_bundle(folder.bundle, study, name)
    control = Control(home)
    control.connect()
    return folder, control.submit(folder.bundle)


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


def follow(home: Home, folder: RunFolder, run_id: str, watch: Watch) -> StudyResult:
    """Wait for the end of a run.

    Args:
        home: The coordinator's home.
        folder: The run's folder.
        run_id: Flower's number of the run.
        watch: Called with every event.

    Returns:
        The result of a run that reached its end.

    Raises:
        SemcError: What stopped the run; RUN_FAILED where it left no word, SERVER_UNREACHABLE where the
            SuperLink did not answer for a minute.
    """
    events, control = EventReader(folder.events_file), Control(home)
    finished, next_status = False, time.monotonic() + _STATUS_SECONDS
    silent_since: float | None = None
    while True:
        for event in events.new():
            watch(event)
            if event["event"] == Event.FAILED:
                raise SemcError(ExitCode(event["code"]), event["problem"], event["fix"])
            if event["event"] == Event.FINISHED and event["outcome"].startswith("complete"):
                return folder.result()
        if finished:
            raise SemcError(
                ExitCode.RUN_FAILED,
                "The run ended without a result.",
                "read the end of executor.log in the home's logs folder, then run the study again",
            )
        if time.monotonic() > next_status:
            try:
                # The events are read once more after this before anything is concluded.
                finished, silent_since = control.run_status(run_id).finished, None
            except SemcError as error:
                now = time.monotonic()
                silent_since = now if silent_since is None else silent_since
                if error.code is not ExitCode.SERVER_UNREACHABLE or now - silent_since >= _PATIENCE_SECONDS:
                    raise
            wait = _STATUS_SECONDS if silent_since is None else _SILENT_STATUS_SECONDS
            next_status = time.monotonic() + wait
        time.sleep(_LOOK_SECONDS)


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
