"""Random lives of a hospital's ledger: studies, crashes at every step, restarts, concurrent runs, lost files.

An observer notes, outside the ledger, whenever data are opened; what that cost is replayed by another library. The
site's habits can be changed to the wrong ones, which is how a test knows that the replay would find an overrun.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.rdp import RdpAccountant, compute_epsilon

from semc.exit_codes import ExitCode, SemcError
from semc.privacy import ledger_anchor, ledger_charges, ledger_store
from semc.privacy.accounting import ORDERS, Mechanism, rdp_epsilon
from semc.privacy.ledger import Ledger, LedgerPlace, Reservation
from semc.privacy.ledger_events import Commit, Reserve
from semc.privacy.limits import Limits
from tests.semc.privacy.ledgers import INCOMING, OUTGOING, limits, place_in

Habit = Literal["right", "charges late", "refunds a crash", "missing is fresh"]

TOTAL = 8.0
STEPS = ("insert", "inserted", "committed", "anchor", "anchored", "reserved", "opened", "answered")
"""Where a crash can happen: before and after the entry is written, after its commit, before and after the anchor is
moved, and around the training."""


@dataclass(frozen=True)
class Study:
    digest: str
    mechanism: Mechanism
    limits: Limits


STUDIES = (
    Study("a" * 64, Mechanism(1.0, 0.05, 60), limits(total=TOTAL, study=6.0)),
    Study("b" * 64, Mechanism(2.0, 0.1, 100), limits(total=TOTAL, study=5.0, delta=1e-6)),
    Study("c" * 64, Mechanism(6.0, 1.0, 5), limits(total=TOTAL, study=7.0)),
)


class CrashError(BaseException):
    """The process is gone: nothing that handles errors may handle this."""


class Faults:
    """Crashes a thread, or kills its process, when it reaches the step it was armed for."""

    def __init__(self) -> None:
        self._armed = threading.local()
        self.kill = False

    def arm(self, step: str | None, after: int = 0) -> None:
        self._armed.step, self._armed.after = step, after

    def reach(self, step: str) -> None:
        if getattr(self._armed, "step", None) != step:
            return
        if self._armed.after > 0:
            self._armed.after -= 1
            return
        self._armed.step = None
        if self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        raise CrashError(step)

    @contextmanager
    def installed(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        """Put the crash sites around the ledger's own writes."""
        insert, replace = ledger_store._insert, os.replace
        move: Callable[..., None] = ledger_store.write_anchor

        def inserting(*arguments: Any) -> str:
            self.reach("insert")
            found = insert(*arguments)
            self.reach("inserted")
            return found

        def moving(*arguments: Any) -> None:
            self.reach("committed")
            move(*arguments)
            self.reach("anchored")

        def replacing(*arguments: Any) -> None:
            self.reach("anchor")
            replace(*arguments)

        with patch.context() as patched:
            patched.setattr(ledger_store, "_insert", inserting)
            patched.setattr(ledger_store, "write_anchor", moving)
            patched.setattr(ledger_anchor.os, "replace", replacing)
            yield


@dataclass
class Life:
    """One schedule's outcome."""

    opened: list[int] = field(default_factory=list)
    """Index of the study whose round opened data, once for every time."""
    counts: Counter[str] = field(default_factory=Counter)

    def overrun(self) -> str | None:
        """Return which limit was broken, by the other library; None where none was."""
        everything = [STUDIES[index].mechanism for index in self.opened]
        if replayed(everything, 1e-5) > TOTAL * 1.001:
            return "total"
        for index, study in enumerate(STUDIES):
            own = [study.mechanism] * self.opened.count(index)
            if replayed(own, study.limits.delta) > study.limits.epsilon_study * 1.001:
                return f"study {index}"
        return None


@lru_cache(maxsize=64)
def _step_cost(noise: float, rate: float) -> np.ndarray[Any, Any]:
    accountant = RdpAccountant(ORDERS)
    accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)))
    return np.asarray(accountant._rdp)


def replayed(mechanisms: list[Mechanism], delta: float) -> float:
    """What dp-accounting says of all mechanisms together."""
    total = sum(
        (one.steps * _step_cost(one.noise_multiplier, one.sampling_rate) for one in mechanisms),
        np.zeros(len(ORDERS)),
    )
    return float(compute_epsilon(list(ORDERS), list(total), delta)[0]) if mechanisms else 0.0


class Hospital:
    """A site under test: its ledger's files, its observer, its habit."""

    def __init__(self, folder: Path, habit: Habit, faults: Faults) -> None:
        self.place = place_in(folder)
        self.habit = habit
        self.faults = faults
        self._log = os.open(folder / "opened", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._folder = folder
        self._new()

    def _new(self) -> None:
        Ledger.create(self.place, site="north", patients=400, delta=1e-5, epsilon_total=TOTAL)

    def open_data(self, study: int) -> None:
        """Note that data were opened, in a way that outlives this process."""
        os.write(self._log, bytes([study]))

    def opened(self) -> list[int]:
        return list((self._folder / "opened").read_bytes())

    def end(self) -> None:
        os.close(self._log)

    def run_round(self, index: int, number: int, crash: str | None, after: int) -> str:
        """Run one round as a freshly started client would, and return how it ended."""
        study = STUDIES[index]
        self.faults.arm(crash, after)
        try:
            ledger = self._start()
            proposal = Reservation(study.digest, number, INCOMING, study.mechanism)
            if self.habit == "charges late":
                self._looks_affordable(ledger, study)
                self._train(index)
                reserved = ledger.reserve(proposal, study.limits)
            else:
                reserved = ledger.reserve(proposal, study.limits)
                self.faults.reach("reserved")
                self._train(index)
            ledger.commit(reserved.seq, OUTGOING)
            self.faults.reach("answered")
        except CrashError:
            return "crashed"
        except SemcError as error:
            if error.code not in (ExitCode.BUDGET_REFUSED, ExitCode.LEDGER_INVALID):
                raise
            return error.code.name
        finally:
            self.faults.arm(None)
        return "answered"

    def _start(self) -> Ledger:
        if self.habit == "missing is fresh" and not self.place.database.exists():
            self.place.anchor.unlink(missing_ok=True)
            self._new()
        return Ledger(self.place, site="north")

    def _train(self, index: int) -> None:
        self.open_data(index)
        self.faults.reach("opened")

    def _looks_affordable(self, ledger: Ledger, study: Study) -> None:
        for digest, delta, limit in (
            (None, 1e-5, TOTAL),
            (study.digest, study.limits.delta, study.limits.epsilon_study),
        ):
            history = ledger_charges.charges(ledger.events(), digest)
            if rdp_epsilon([*history, study.mechanism], delta) > limit:
                raise SemcError(ExitCode.BUDGET_REFUSED, "over", "none")


def _committed_charges(events: Any, study_digest: str | None = None) -> list[Mechanism]:
    """The wrong habit: a reservation whose answer never came is given back."""
    answered = {event.reservation for event in events if isinstance(event, Commit)}
    return [
        event.cost()
        for event in events
        if isinstance(event, Reserve) and event.seq in answered and study_digest in (None, event.study_digest)
    ]


def live(
    folder: Path, seed: int, patch: pytest.MonkeyPatch, habit: Habit = "right", *, processes: bool = False
) -> Life:
    """Run one random schedule from its seed.

    Args:
        folder: Empty.
        seed: Of the schedule; threads and processes still race as they like.
        patch: Puts the crash sites in.
        habit: What the site does, right or wrong.
        processes: Run rounds in real processes that are really killed, not in threads.
    """
    chance = random.Random(seed)
    faults = Faults()
    with patch.context() as patched, faults.installed(patched):
        hospital = Hospital(folder, habit, faults)
        if habit == "refunds a crash":
            patched.setattr(ledger_charges, "charges", _committed_charges)
        life = Life()
        lost = False
        for number in range(chance.randint(5, 14)):
            if not lost and number > 2 and chance.random() < 0.04:
                _lose(hospital.place, chance)
                lost = True
            before = len(hospital.opened())
            jobs = [
                (
                    chance.randrange(len(STUDIES)),
                    number,
                    chance.choice(STEPS) if chance.random() < 0.4 else None,
                    chance.randrange(2),
                )
                for _ in range(chance.choice((1, 1, 2, 3)))
            ]
            outcomes = (_in_processes if processes else _in_threads)(hospital, jobs)
            life.counts.update(outcomes)
            if lost and habit == "right":
                assert set(outcomes) == {"LEDGER_INVALID"}, outcomes
                assert len(hospital.opened()) == before, "data were opened with a ledger that is not whole"
            elif habit == "right":
                assert "LEDGER_INVALID" not in outcomes, "a crash alone never makes a ledger unusable"
                refusals = outcomes.count("BUDGET_REFUSED")
                assert len(hospital.opened()) - before <= len(jobs) - refusals, "opened after a refusal"
        life.opened = hospital.opened()
        hospital.end()
    return life


def _lose(place: LedgerPlace, chance: random.Random) -> None:
    """Do what a careless or dishonest administrator might."""
    match chance.choice(("database", "folder", "anchor")):
        case "database":
            place.database.unlink()
        case "folder":
            shutil.rmtree(place.folder)
        case _:
            place.anchor.unlink()


Job = tuple[int, int, str | None, int]


def _in_threads(hospital: Hospital, jobs: list[Job]) -> list[str]:
    if len(jobs) == 1:
        return [hospital.run_round(*jobs[0])]
    outcomes: list[str] = []
    threads = [
        threading.Thread(target=lambda job=job: outcomes.append(hospital.run_round(*job))) for job in jobs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == len(jobs)
    return outcomes


_ENDS = ("answered", "BUDGET_REFUSED", "LEDGER_INVALID", "crashed")


def _in_processes(hospital: Hospital, jobs: list[Job]) -> list[str]:
    children = []
    sys.stdout.flush()
    for job in jobs:
        child = os.fork()
        if child == 0:
            hospital.faults.kill = True
            try:
                os._exit(_ENDS.index(hospital.run_round(*job)))
            finally:
                os._exit(99)
        children.append(child)
    outcomes = []
    for child in children:
        status = os.waitpid(child, 0)[1]
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        outcomes.append("crashed" if killed else _ENDS[os.waitstatus_to_exitcode(status)])
    return outcomes
