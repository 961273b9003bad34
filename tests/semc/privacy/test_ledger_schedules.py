"""Must show: over 1,000 random schedules no patient is ever charged less than was done, and none over the limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.semc.privacy.ledgers import without_waiting
from tests.semc.privacy.schedules import Habit, Life, live

QUICK, ALL, KILLED = 40, 1000, 100
HABITS = ("charges late", "refunds a crash", "missing is fresh")
Live = Callable[..., Life]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Live:
    without_waiting(monkeypatch)

    def one(seed: int, habit: Habit = "right", *, processes: bool = False) -> Life:
        folder = tmp_path / f"{habit}-{seed}-{processes}"
        folder.mkdir()
        return live(folder, seed, monkeypatch, habit, processes=processes)

    return one


def none_over(run: Live, seeds: range, *, processes: bool = False) -> None:
    counts: Counter[str] = Counter()
    for seed in seeds:
        life = run(seed, processes=processes)
        assert life.overrun() is None, seed
        counts += life.counts
        counts["opened"] += len(life.opened)
        counts["schedules refused"] += life.counts["BUDGET_REFUSED"] > 0
    print(f"{len(seeds)} schedules, 0 over the limit: {dict(sorted(counts.items()))}")
    # the schedules do reach the limit, crash and lose files, or they would show nothing
    assert counts["schedules refused"] > len(seeds) * 0.5
    assert counts["crashed"] > len(seeds)
    assert counts["LEDGER_INVALID"] > len(seeds) * 0.2


def test_no_schedule_goes_over(run: Live) -> None:
    none_over(run, range(QUICK))


def test_no_killed_process_goes_over(run: Live) -> None:
    none_over(run, range(5000, 5008), processes=True)


@pytest.mark.parametrize("habit", HABITS)
def test_a_wrong_habit_is_found(run: Live, habit: Habit) -> None:
    assert any(run(seed, habit).overrun() is not None for seed in range(QUICK))


@pytest.mark.audit
def test_a_thousand_schedules(run: Live) -> None:
    none_over(run, range(ALL - KILLED))
    none_over(run, range(5000, 5000 + KILLED), processes=True)


@pytest.mark.audit
@pytest.mark.parametrize("habit", HABITS)
def test_how_often_a_wrong_habit_goes_over(run: Live, habit: Habit) -> None:
    overruns = [seed for seed in range(200) if run(seed, habit).overrun() is not None]
    print(f"{habit}: {len(overruns)} of 200 schedules over the limit")
    assert len(overruns) > 10
