"""A process that keeps ending is given up; crashes with work between them, or long ago, are accidents."""

from __future__ import annotations

import pytest

from client.crash_count import MOST_CRASHES, WINDOW_SECONDS, CrashCount
from semc.exit_codes import ExitCode, SemcError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_fifth_crash_within_ten_minutes_is_one_too_many() -> None:
    clock = Clock()
    count = CrashCount(clock)
    for _ in range(MOST_CRASHES - 1):
        count.add("training")
        clock.now += 1
    with pytest.raises(SemcError) as caught:
        count.add("training")
    assert caught.value.code is ExitCode.INTERNAL
    assert "training" in caught.value.problem


def test_rare_crashes_never_add_up() -> None:
    clock = Clock()
    count = CrashCount(clock)
    for _ in range(50):
        count.add("network")
        clock.now += WINDOW_SECONDS / (MOST_CRASHES - 1)


def test_a_message_answered_in_between_forgives_all() -> None:
    clock = Clock()
    count = CrashCount(clock)
    for _ in range(50):
        count.add("training")
        count.forget()
