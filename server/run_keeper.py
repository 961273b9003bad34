"""Brings back runs whose round loop died: `semc-server up` asks it whenever an executor has ended.

A round loop that stops for a reason says so in the run's events and is left alone. One that was killed, or whose run
Flower gave up, says nothing: it is submitted again and goes on from its checkpoint and the replies on disk. One that
dies again and again without a new round is given up.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Final

from semc.exit_codes import ExitCode, SemcError
from server.control import Control
from server.events import Event, EventLog, events_of
from server.home import Home
from server.run_folder import RunFolder
from server.run_state import RunState, run_state
from server.submit import resubmit

_LOOK_SECONDS: Final = 2.0
"""Until the next try to bring a run back."""
_IDLE_SECONDS: Final = 30.0
"""Between looks when nothing has ended: a submission may have died half-way."""
_MOST_REVIVALS: Final = 3
_CALL_SECONDS: Final = 15.0
"""Longest call of the SuperLink: the supervisor waits for it, and must see a child that dies meanwhile."""
_NOT_THE_RUNS_FAULT: Final = frozenset(
    {ExitCode.SERVER_UNREACHABLE, ExitCode.ALREADY_RUNNING, ExitCode.USAGE}
)
"""The SuperLink is away, or somebody else was faster, or the run has finished meanwhile."""


@dataclass
class _Revivals:
    """How often a run was brought back without a new round."""

    rounds: int = 0
    count: int = 0


@dataclass
class RunKeeper:
    """Looks after the runs of one home.

    Args:
        home: The coordinator's home.
    """

    home: Home
    _left_alone: dict[str, int] = field(default_factory=dict)
    """Run to the size of its events when it was left alone; one that has been resumed since has more."""
    _revivals: dict[str, _Revivals] = field(default_factory=dict)
    _finished: set[str] = field(default_factory=set)
    _next_look: float = field(default_factory=time.monotonic)

    def leave_alone(self) -> list[str]:
        """Never bring back what is interrupted now, from before the coordinator was started; returns those runs."""
        interrupted = [
            name for name in self._unfinished() if run_state(self._folder(name)) is RunState.INTERRUPTED
        ]
        self._left_alone |= {name: self._size(name) for name in interrupted}
        return interrupted

    def look_soon(self) -> None:
        """An executor has ended: a run may have lost its round loop."""
        self._next_look = time.monotonic()

    def tick(self) -> None:
        """Look, where that is due, and bring back what lost its round loop; a SuperLink that is away is tried again."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _IDLE_SECONDS
        try:
            lost = [name for name in self._unfinished() if self._is_lost(self._folder(name))]
            for name in lost:
                self._revive(name)
            if lost:
                self._next_look = time.monotonic() + _LOOK_SECONDS
        except Exception:  # whatever is wrong with one run, the others and the coordinator go on
            logging.exception("a run could not be looked after")

    def _unfinished(self) -> list[str]:
        """Return the runs that may need looking after; a finished one never does again."""
        open_runs = []
        for folder in self.home.all_runs():
            name = folder.root.name
            if name in self._finished or self._left_alone.get(name) == self._size(name):
                continue
            state = run_state(folder)
            if state is RunState.FINISHED:
                self._finished.add(name)
            elif state is not RunState.STOPPED:
                open_runs.append(name)
        return open_runs

    def _size(self, name: str) -> int:
        try:
            return self._folder(name).events_file.stat().st_size
        except OSError:
            return 0

    def _folder(self, name: str) -> RunFolder:
        folder = self.home.run(name)
        assert folder is not None
        return folder

    def _is_lost(self, folder: RunFolder) -> bool:
        """Tell whether nobody will go on with a run; one that waits is lost where Flower has ended it."""
        match run_state(folder):
            case RunState.INTERRUPTED:
                return True
            case RunState.WAITING:
                if folder.flower_run is None:
                    return True  # nobody came to the end of submitting it
                try:
                    return not Control(self.home, _CALL_SECONDS).is_under_way(folder.flower_run)
                except SemcError:
                    return False
            case _:
                return False

    def _revive(self, name: str) -> None:
        folder = self._folder(name)
        rounds = len(events_of(folder.events_file, (Event.AGGREGATED,)))
        revivals = self._revivals.setdefault(name, _Revivals())
        if rounds != revivals.rounds:
            revivals.rounds, revivals.count = rounds, 0
        if revivals.count >= _MOST_REVIVALS:
            problem = f"The round loop died {_MOST_REVIVALS + 1} times without finishing another round."
            fix = "read the end of executor.log in the home's logs folder, then `semc-server resume`"
            self._give_up(folder, SemcError(ExitCode.RUN_FAILED, problem, fix))
            return
        try:
            resubmit(self.home, folder, unattended=True)
        except SemcError as error:
            if error.code not in _NOT_THE_RUNS_FAULT:
                self._give_up(folder, error)
            return
        revivals.count += 1

    def _give_up(self, folder: RunFolder, error: SemcError) -> None:
        """Say why a run is not brought back any more, and do not look at it again unless somebody resumes it."""
        EventLog(folder.events_file).write(
            Event.FAILED, code=int(error.code), problem=error.problem, fix=error.fix
        )
        self._left_alone[folder.root.name] = self._size(folder.root.name)
