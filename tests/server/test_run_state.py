"""A run's state, told by its folder: by its last word and by whether a process holds its lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from semc.exit_codes import ExitCode, SemcError
from server.events import Event, EventLog
from server.home import Endpoint, Home
from server.run_folder import RunFolder
from server.run_keeper import RunKeeper
from server.run_state import RunState, run_state
from tests.server.federation import registry_of, tiny_study

HOLDER = """
import sys, time
from pathlib import Path
from server.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


def run_of(home: Home, *events: Event, name: str = "run-1") -> RunFolder:
    folder = home.run(name)
    assert folder is not None
    folder.create(tiny_study(), registry_of({"north": 1, "south": 2, "west": 3}))
    for event in events:
        EventLog(folder.events_file).write(event, outcome="complete_on_subset")
    return folder


@pytest.mark.parametrize(
    ("events", "free", "held"),
    [
        ([], RunState.STOPPED, RunState.RUNNING),
        ([Event.SUBMITTED], RunState.WAITING, RunState.RUNNING),
        ([Event.SUBMITTED, Event.STARTED], RunState.INTERRUPTED, RunState.RUNNING),
        ([Event.SUBMITTED, Event.STARTED, Event.SUBMITTED], RunState.WAITING, RunState.RUNNING),
        ([Event.SUBMITTED, Event.STARTED, Event.FAILED], RunState.STOPPED, RunState.RUNNING),
        ([Event.SUBMITTED, Event.STARTED, Event.FINISHED], RunState.FINISHED, RunState.FINISHED),
    ],
)
def test_words_and_lock(tmp_path: Path, events: list[Event], free: RunState, held: RunState) -> None:
    folder = run_of(Home(tmp_path), *events)
    assert run_state(folder) is free
    with folder.lock():
        assert run_state(folder) is held


def test_a_killed_round_loop_lets_go_at_once(tmp_path: Path) -> None:
    folder = run_of(Home(tmp_path), Event.SUBMITTED, Event.STARTED)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder.root)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    assert run_state(folder) is RunState.RUNNING
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert run_state(folder) is RunState.INTERRUPTED


def test_two_round_loops_never_hold_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.run_folder._LOCK_SECONDS", 0.2)
    folder = run_of(Home(tmp_path))
    with folder.lock(), pytest.raises(SemcError) as caught, folder.lock():
        pass
    assert caught.value.code is ExitCode.ALREADY_RUNNING


# --- the keeper -------------------------------------------------------------------------------------------


@pytest.fixture
def brought_back(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the runs that were submitted again; each begins, and its loop dies again at once."""
    names: list[str] = []

    def again(_home: Home, folder: RunFolder, **_: object) -> None:
        names.append(folder.root.name)
        EventLog(folder.events_file).write(Event.SUBMITTED)
        EventLog(folder.events_file).write(Event.STARTED)

    monkeypatch.setattr("server.run_keeper.resubmit", again)
    monkeypatch.setattr("server.run_keeper._LOOK_SECONDS", 0.0)
    return names


def test_only_a_run_that_died_without_a_word_is_brought_back(tmp_path: Path, brought_back: list[str]) -> None:
    home = Home(tmp_path)
    home.write_endpoint(Endpoint("127.0.0.1:1", "127.0.0.1:1", 1))
    run_of(home, Event.SUBMITTED, Event.STARTED, name="dead")
    run_of(home, Event.SUBMITTED, Event.STARTED, Event.FAILED, name="stopped")
    run_of(home, Event.SUBMITTED, Event.STARTED, Event.FINISHED, name="finished")
    run_of(home, name="never")
    alive = run_of(home, Event.SUBMITTED, Event.STARTED, name="alive")
    keeper = RunKeeper(home)
    with alive.lock():
        keeper.tick()
    assert brought_back == ["dead"]


def test_a_run_that_dies_again_and_again_is_given_up_with_a_word(
    tmp_path: Path, brought_back: list[str]
) -> None:
    home = Home(tmp_path)
    folder = run_of(home, Event.SUBMITTED, Event.STARTED)
    keeper = RunKeeper(home)
    for _ in range(10):
        keeper.look_soon()
        keeper.tick()
    assert brought_back == ["run-1"] * 3
    assert run_state(folder) is RunState.STOPPED


def test_progress_gives_new_chances(tmp_path: Path, brought_back: list[str]) -> None:
    home = Home(tmp_path)
    folder = run_of(home, Event.SUBMITTED, Event.STARTED)
    keeper = RunKeeper(home)
    for number in range(6):
        EventLog(folder.events_file).write(Event.AGGREGATED, round=number)
        keeper.look_soon()
        keeper.tick()
    assert brought_back == ["run-1"] * 6


def test_what_was_interrupted_before_the_coordinator_came_waits_for_the_operator(
    tmp_path: Path, brought_back: list[str]
) -> None:
    home = Home(tmp_path)
    folder = run_of(home, Event.SUBMITTED, Event.STARTED)
    keeper = RunKeeper(home)
    assert keeper.leave_alone() == ["run-1"]
    keeper.look_soon()
    keeper.tick()
    assert brought_back == []
    EventLog(folder.events_file).write(Event.SUBMITTED)  # the operator resumed it, and it died again
    EventLog(folder.events_file).write(Event.STARTED)
    keeper.look_soon()
    keeper.tick()
    assert brought_back == ["run-1"]


def test_the_keeper_says_nothing_about_a_run_that_somebody_else_goes_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last word decides how a run stands: a word about a quarrel would make a healthy run a stopped one."""
    home = Home(tmp_path)
    folder = run_of(home, Event.SUBMITTED, Event.STARTED)
    for code, word in (
        (ExitCode.ALREADY_RUNNING, RunState.INTERRUPTED),
        (ExitCode.USAGE, RunState.INTERRUPTED),
        (ExitCode.SERVER_UNREACHABLE, RunState.INTERRUPTED),
        (ExitCode.DISK, RunState.STOPPED),
    ):

        def refused(*_: object, problem: ExitCode = code, **__: object) -> None:
            raise SemcError(problem, "p", "f")

        monkeypatch.setattr("server.run_keeper.resubmit", refused)
        keeper = RunKeeper(home)
        keeper.look_soon()
        keeper.tick()
        assert run_state(folder) is word


def test_a_finished_run_stays_finished_whatever_is_said_later(tmp_path: Path) -> None:
    folder = run_of(Home(tmp_path), Event.SUBMITTED, Event.STARTED, Event.FINISHED)
    for later in (Event.SUBMITTED, Event.STARTED, Event.FAILED):
        EventLog(folder.events_file).write(later)
        assert run_state(folder) is RunState.FINISHED


@pytest.mark.parametrize("torn", [b'{"time": 1, "ev', b"\x00" * 40, b'["a list"]\n', b"\xff\xfe broken \n"])
def test_what_a_power_cut_left_of_a_line_stops_nobody(tmp_path: Path, torn: bytes) -> None:
    home = Home(tmp_path)
    folder = run_of(home, Event.SUBMITTED, Event.STARTED)
    with folder.events_file.open("ab") as stream:
        stream.write(torn)
    assert run_state(folder) is RunState.INTERRUPTED
    assert RunKeeper(home).leave_alone() == ["run-1"]
    EventLog(folder.events_file).write(Event.FAILED, code=50, problem="p", fix="f")
    assert run_state(folder) is RunState.STOPPED, "the next word stands on a line of its own"
