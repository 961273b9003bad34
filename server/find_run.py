"""Which run a command means, and its report."""

from __future__ import annotations

from pathlib import Path

from semc.exit_codes import ExitCode, SemcError
from server.home import Home
from server.run_folder import RunFolder
from server.run_state import RunState, run_state


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
