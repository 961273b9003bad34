"""Following a run through a SuperLink that does not answer for a while, on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from semc.exit_codes import ExitCode, SemcError
from server.control import Control, RunStatus
from server.events import Event, EventLog
from server.home import Home
from server.run_folder import RunFolder
from server.submit import follow

Follow = Callable[[Callable[[float], bool]], SemcError]


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("server.submit.time", clock)
    return clock


@pytest.fixture
def following(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Follow:
    """Follow a run that ends with QUORUM_LOST at 300 s, while `answers(now)` says when Flower answers."""

    def begin(answers: Callable[[float], bool]) -> SemcError:
        folder = RunFolder(tmp_path)

        def run_status(_control: Control, run_id: str) -> RunStatus:
            if not answers(clock.now):
                raise SemcError(ExitCode.SERVER_UNREACHABLE, "Nobody answers.", "start it")
            if clock.now > 300:
                EventLog(folder.events_file).write(Event.FAILED, code=50, problem="p", fix="f")
            return RunStatus(run_id, "running", "")

        monkeypatch.setattr(Control, "run_status", run_status)
        with pytest.raises(SemcError) as caught:
            follow(Home(tmp_path), folder, "1", lambda event: None)
        return caught.value

    return begin


def test_a_minute_of_silence_is_borne_each_time_the_superlink_dies(following: Follow, clock: Clock) -> None:
    outages = ((40, 95), (150, 205))
    ended = following(lambda now: not any(start < now < end for start, end in outages))
    assert ended.code is ExitCode.QUORUM_LOST
    assert clock.now > 300


def test_a_superlink_that_stays_away_ends_the_following(following: Follow, clock: Clock) -> None:
    ended = following(lambda now: now < 100)
    assert ended.code is ExitCode.SERVER_UNREACHABLE
    assert 160 <= clock.now < 200
