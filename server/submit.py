"""`semc-server run` and `resume`: make the run's folder, hand the bundle to Flower, the first time or to go on."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final

from semc.config import StudyConfig
from semc.exit_codes import ExitCode, SemcError
from semc.privacy.limits import check_plan
from server.bundle import write_bundle
from server.control import Control
from server.events import Event, EventLog
from server.health import Health, ask_health
from server.home import Home
from server.registry import Registry
from server.run_folder import RunFolder
from server.run_state import RunState, run_state

_LOCK: Final = "submit.lock"
"""One submission at a time: two of the same run would be two Flower runs of it."""
_UNATTENDED_SECONDS: Final = 15.0
_SUPERLINK_BACK_SECONDS: Final = 60.0
"""A SuperLink that died is served again well within this time."""
_LOOK_SECONDS: Final = 0.5


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
    with home.lock(_LOCK, wait=True):
        folder = home.run(home.new_run_name(study.name, study.digest()))
        assert folder is not None
        folder.create(study, registry)
        _hand_over(home, folder, study, Control(home), unattended=False)
    return folder


def resubmit(home: Home, folder: RunFolder, *, unattended: bool = False) -> None:
    """Have the coordinator go on with a run from its checkpoint and the replies on disk.

    Args:
        home: The coordinator's home.
        folder: A run whose round loop is not alive.
        unattended: The coordinator itself does it: calls are short, since it has children to look after, and where
            nobody answers it says nothing and tries again later.

    Raises:
        SemcError: USAGE where the run has finished, ALREADY_RUNNING where its round loop is alive or somebody else has
            just submitted it, SERVER_UNREACHABLE, RUN_FAILED, DISK, and what its study file is refused for.
    """
    with home.lock(_LOCK, wait=not unattended):
        _go_on(home, folder, unattended)


def _go_on(home: Home, folder: RunFolder, unattended: bool) -> None:
    """Submit a run again unless that is senseless."""
    state = run_state(folder)
    match state:
        case RunState.FINISHED:
            raise SemcError(
                ExitCode.USAGE,
                f"Run '{folder.root.name}' has finished: {folder.result().outcome.replace('_', ' ')}.",
                "see it with `semc-server report`, or start another run",
            )
        case RunState.RUNNING:
            raise _already(folder)
    require_coordinator(home)
    control = Control(home, _UNATTENDED_SECONDS) if unattended else Control(home)
    if folder.flower_run is not None:
        if state is RunState.WAITING and control.is_under_way(folder.flower_run):
            raise _already(folder)
        with suppress(SemcError):  # it has ended, mostly
            control.stop(folder.flower_run)
    _hand_over(home, folder, folder.study(), control, unattended=unattended)


def _already(folder: RunFolder) -> SemcError:
    return SemcError(
        ExitCode.ALREADY_RUNNING,
        f"Run '{folder.root.name}' is under way.",
        "follow it with `semc-server resume`",
    )


def _hand_over(
    home: Home, folder: RunFolder, study: StudyConfig, control: Control, *, unattended: bool
) -> None:
    """Give the run's bundle to Flower; a run that it does not take says so in its events."""
    events = EventLog(folder.events_file)
    try:
        folder.forget_flower_run()
        write_bundle(folder.bundle, study, folder.root.name)
        control.connect()
        events.write(Event.SUBMITTED)  # before the round loop, which may begin at once
        folder.note_flower_run(_taken(home, folder, control, 0.0 if unattended else _SUPERLINK_BACK_SECONDS))
    except OSError as error:
        raise SemcError(
            ExitCode.DISK,
            f"The run could not be handed over ({error.strerror}).",
            "free space on the coordinator's disk, then `semc-server resume`",
        ) from error
    except SemcError as error:
        if not (unattended and error.code is ExitCode.SERVER_UNREACHABLE):
            events.write(Event.FAILED, code=int(error.code), problem=error.problem, fix=error.fix)
        raise


def _taken(home: Home, folder: RunFolder, control: Control, seconds: float) -> str:
    """Hand a bundle over and return Flower's number of the run; a SuperLink that dies at this moment is waited for.

    If it had taken the run before it died there are two runs of it, of which the second finds the first one's end.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            return control.submit(folder.bundle)
        except SemcError as error:
            if error.code is not ExitCode.SERVER_UNREACHABLE or time.monotonic() > end:
                raise
        while ask_health(home.endpoint().health_address) is not Health.SERVING and time.monotonic() < end:
            time.sleep(_LOOK_SECONDS)


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
