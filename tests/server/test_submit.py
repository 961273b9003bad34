"""Following a run whose round loop or coordinator dies, on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from semc.exit_codes import ExitCode, SemcError
from server.control import Control
from server.events import Event, EventLog, EventReader
from server.find_run import unfinished_run
from server.follow import follow
from server.health import Health
from server.home import Endpoint, Home
from server.run_folder import RunFolder
from server.run_state import RunState, run_state
from server.submit import resubmit
from tests.semc.reporting.study_result import study_result
from tests.server.federation import registry_of, tiny_study

SIZES = {"north": 10, "south": 20, "west": 70}


class Clock:
    """Time that passes only while somebody sleeps; things happen at their time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for entry in [entry for entry in self.due if entry[0] <= self.now]:
            self.due.remove(entry)
            entry[1]()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("server.follow.time", clock)
    return clock


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path)
    home.write_endpoint(Endpoint("127.0.0.1:1", "127.0.0.1:1", 1))
    return home


def submitted(home: Home, name: str = "run-1") -> tuple[RunFolder, EventLog]:
    """Return a run that was handed to the coordinator."""
    folder = home.run(name)
    assert folder is not None
    folder.create(tiny_study(), registry_of(SIZES))
    events = EventLog(folder.events_file)
    events.write(Event.SUBMITTED)
    return folder, events


def ended(home: Home, folder: RunFolder) -> SemcError:
    with pytest.raises(SemcError) as caught:
        follow(home, folder, EventReader(folder.events_file), lambda event: None)
    return caught.value


def health(monkeypatch: pytest.MonkeyPatch, serves: Callable[[], bool]) -> None:
    monkeypatch.setattr(
        "server.follow.ask_health", lambda _: Health.SERVING if serves() else Health.UNREACHABLE
    )


def test_a_dead_loop_that_is_brought_back_in_time_is_waited_for(
    home: Home, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    health(monkeypatch, lambda: True)
    folder, events = submitted(home)
    events.write(Event.STARTED, sites=[], rounds=1, digest="")  # and nobody holds the lock
    clock.due.append((60, lambda: events.write(Event.SUBMITTED)))
    clock.due.append((400, lambda: folder.write_result(study_result())))
    clock.due.append((400, lambda: events.write(Event.FINISHED, outcome="complete", seconds=1.0)))
    result = follow(home, folder, EventReader(folder.events_file), lambda event: None)
    assert result.outcome == "complete"
    assert clock.now >= 400


def test_a_dead_loop_that_nobody_brings_back_ends_the_following(
    home: Home, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    health(monkeypatch, lambda: True)
    folder, events = submitted(home)
    events.write(Event.STARTED, sites=[], rounds=1, digest="")
    assert ended(home, folder).code is ExitCode.RUN_FAILED
    assert 90 <= clock.now < 120


def test_a_short_silence_of_the_coordinator_is_borne_each_time(
    home: Home, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    outages = ((40, 120), (150, 230))
    health(monkeypatch, lambda: not any(start < clock.now < end for start, end in outages))
    folder, events = submitted(home)
    clock.due.append((300, lambda: events.write(Event.FAILED, code=50, problem="p", fix="f")))
    assert ended(home, folder).code is ExitCode.QUORUM_LOST
    assert clock.now >= 300


def test_a_coordinator_that_stays_away_ends_the_following(
    home: Home, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    health(monkeypatch, lambda: clock.now < 100)
    folder, _ = submitted(home)
    found = ended(home, folder)
    assert found.code is ExitCode.SERVER_UNREACHABLE
    assert "semc-server resume" in found.fix
    assert 190 <= clock.now < 220


def test_a_running_loop_is_waited_for_without_limit(
    home: Home, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    health(monkeypatch, lambda: False)
    folder, events = submitted(home)
    events.write(Event.STARTED, sites=[], rounds=1, digest="")
    clock.due.append((5000, lambda: events.write(Event.FAILED, code=52, problem="p", fix="f")))
    with folder.lock():
        assert ended(home, folder).code is ExitCode.RUN_FAILED
    assert clock.now >= 5000


def test_what_has_finished_or_runs_is_not_submitted_again(home: Home) -> None:
    folder, events = submitted(home)
    events.write(Event.STARTED, sites=[], rounds=1, digest="")
    with folder.lock(), pytest.raises(SemcError) as caught:
        resubmit(home, folder)
    assert caught.value.code is ExitCode.ALREADY_RUNNING
    folder.write_result(study_result())
    events.write(Event.FINISHED, outcome="complete", seconds=1.0)
    with pytest.raises(SemcError) as caught:
        resubmit(home, folder)
    assert caught.value.code is ExitCode.USAGE


def test_resume_takes_the_latest_run_that_has_not_finished(home: Home) -> None:
    with pytest.raises(SemcError) as caught:
        unfinished_run(home, None)
    assert caught.value.code is ExitCode.CONFIG_NOT_FOUND
    for name in ("run-1", "run-2", "run-3"):
        _, events = submitted(home, name)
        if name == "run-3":
            events.write(Event.FINISHED, outcome="complete_on_subset", seconds=1.0)
    assert unfinished_run(home, None).root.name == "run-2"
    assert unfinished_run(home, "run-1").root.name == "run-1"


@pytest.mark.parametrize("unattended", [False, True])
def test_a_superlink_that_dies_while_it_is_handed_a_run_is_waited_for_by_people_and_tried_again_by_the_keeper(
    home: Home, clock: Clock, monkeypatch: pytest.MonkeyPatch, unattended: bool
) -> None:
    monkeypatch.setattr("server.submit.time", clock)
    monkeypatch.setattr(
        "server.submit.ask_health", lambda _: Health.SERVING if not 0 < clock.now < 5 else Health.UNREACHABLE
    )
    folder, events = submitted(home)
    events.write(Event.STARTED, sites=[], rounds=1, digest="")
    tries: list[float] = []

    def submit(_control: Control, _bundle: Path) -> str:
        tries.append(clock.now)
        clock.now += 1
        if len(tries) == 1:
            raise SemcError(ExitCode.SERVER_UNREACHABLE, "Nobody answers.", "wait")
        return "77"

    monkeypatch.setattr(Control, "submit", submit)
    if unattended:
        with pytest.raises(SemcError):
            resubmit(home, folder, unattended=True)
        assert len(tries) == 1
        assert run_state(folder) is RunState.WAITING, "no word: it is tried again"
        assert folder.flower_run is None
    else:
        resubmit(home, folder)
        assert len(tries) == 2
        assert folder.flower_run == "77"


def test_the_keeper_never_waits_for_somebody_who_submits(home: Home) -> None:
    """He may be waiting for the SuperLink, which only the keeper's process can bring back."""
    folder, events = submitted(home)
    events.write(Event.STARTED, sites=[], rounds=1, digest="")
    with home.lock("submit.lock", wait=True), pytest.raises(SemcError) as caught:
        resubmit(home, folder, unattended=True)
    assert caught.value.code is ExitCode.ALREADY_RUNNING
