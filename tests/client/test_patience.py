"""Waits are a tenth of the time waited, between their limits."""

from __future__ import annotations

import pytest

from client import executor
from client.executor import Waits
from client.patience import Patience


def test_no_wait_adds_more_than_a_tenth() -> None:
    now = 0.0
    patience = Patience(0.1, 1.0, lambda: now)
    asked = []
    while now < 30:
        wait = patience.next_wait()
        assert 0.1 <= wait <= 1.0
        assert wait <= max(0.1, 0.1 * now + 1e-9)
        asked.append(now)
        now += wait
    assert len(asked) < 60, "ten times a second would be 300"
    patience.reset()
    assert patience.next_wait() == 0.1


def test_the_longest_wait_wins() -> None:
    assert Patience(0.1, 0.02, lambda: 0.0).next_wait() == 0.02


def test_the_supernodes_two_waits_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(executor.time, "sleep", slept.append)
    waits = Waits(5.0)
    waits._patience._since = -1e6
    waits.sleep(3)
    waits.sleep(0.5)
    waits.sleep(3)
    assert slept == [5.0, executor.REPLY_WAIT_SECONDS, executor.SHORTEST_POLL_SECONDS]
