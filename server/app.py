"""The ServerApp: finds the run's folder, loads the study and runs the round loop over Flower's grid.

Deployed, the process is the executor that `semc-server up` started: the run's name comes from the bundle's
settings and its folder lies in the coordinator's home. In a simulation the folder is given. The study is
always read from the folder, never from what Flower unpacked. A process that is killed, or whose run Flower has given
up, leaves no word in the run's events; whoever finds the run's lock free then knows (server/run_state.py).
"""

from __future__ import annotations

import os
from pathlib import Path

import httpx
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from semc.exit_codes import ExitCode, SemcError
from server.bundle import RUN_KEY
from server.events import Event, EventLog
from server.home import HOME_VARIABLE, Home
from server.ledger_heads import LedgerHeads
from server.receipt_signing import ReceiptSigner
from server.rounds import run_study
from server.run_folder import RunFolder
from server.run_state import RunState, has_stopped, run_state


def build_app(run_folder: Path | None = None) -> ServerApp:
    """Return the ServerApp.

    Args:
        run_folder: Folder of the run; by default the one that the run's settings name in the coordinator's
            home.
    """
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        folder = RunFolder(run_folder) if run_folder is not None else _deployed_folder(context)
        try:
            study = folder.study()
            if run_folder is None:
                _limit_pulls(study.federation.deadline_seconds)
            home = _home() if run_folder is None else None
            with folder.lock():
                if run_state(folder) is RunState.FINISHED or (run_folder is None and has_stopped(folder)):
                    return  # submitted twice; what has ended goes on only where somebody asks for it
                folder.result_file.unlink(missing_ok=True)  # of the time it stopped
                run_study(
                    grid,
                    study,
                    folder.registry(),
                    folder,
                    heads=LedgerHeads(home.ledger_heads) if home else None,
                    signer=ReceiptSigner.load_or_make(home.receipts_key) if home else None,
                    transport=home.superlink_start if home else str,
                )
        except SemcError as error:
            if error.code is not ExitCode.ALREADY_RUNNING:  # the other round loop has the word
                _report(folder, error)
            raise
        except httpx.HTTPError:
            raise  # the SuperLink failed, not the study: without a word the run is brought back
        except Exception:
            _report(
                folder,
                SemcError(
                    ExitCode.INTERNAL,
                    "The round loop met an unforeseen error.",
                    "see the coordinator's log of this run, and report it",
                ),
            )
            raise

    return server_app


def _deployed_folder(context: Context) -> RunFolder:
    """Return the folder of the run that the bundle's settings name.

    Raises:
        SemcError: CONFIG_NOT_FOUND where this process has no home, or the home no such run.
    """
    home, name = _home(), context.run_config.get(RUN_KEY)
    folder = home.run(str(name)) if home else None
    if folder is None or not folder.study_file.is_file():
        raise SemcError(
            ExitCode.CONFIG_NOT_FOUND,
            "The coordinator has no folder for this run.",
            "start runs with `semc-server run`",
        )
    return folder


def _home() -> Home | None:
    """Return the coordinator's home that this process belongs to; a simulation has none."""
    home = os.environ.get(HOME_VARIABLE)
    return Home(Path(home)) if home else None


def _limit_pulls(seconds: float) -> None:
    """Let no single reply's upload hold the round loop beyond the deadline."""
    from server.superlink import limit_pulls

    limit_pulls(seconds)


def _report(folder: RunFolder, error: SemcError) -> None:
    """Tell whoever watches the run why it stopped."""
    log = EventLog(folder.events_file)
    log.write(Event.FAILED, code=int(error.code), problem=error.problem, fix=error.fix)


app = build_app()
