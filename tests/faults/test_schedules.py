"""Random kills at random moments, from seeds: no round lost, no reply counted twice, no orphan, no wrong outcome."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.federation import Federation, small_study
from tests.faults.schedules import run_schedule, strikes

QUICK = 2
BLOCK = 10
FIRST = int(os.environ.get("FAULT_FROM", "0"))
"""Seed to begin with: a long run that was interrupted goes on from there."""
NUMBER = int(os.environ.get("FAULT_SCHEDULES", "200"))


def blocks() -> list[Any]:
    """Return seeds in blocks, the unit that is handed to a worker; the first few are quick."""
    quick = pytest.param(range(QUICK), marks=pytest.mark.xdist_group("faults"), id="first")
    starts = range(max(FIRST, QUICK), FIRST + NUMBER, BLOCK)
    return [
        quick,
        *(
            pytest.param(
                range(start, min(start + BLOCK, FIRST + NUMBER)),
                marks=pytest.mark.faults,
                id=f"from {start}",
            )
            for start in starts
        ),
    ]


@pytest.mark.timeout(600 * BLOCK)
@pytest.mark.parametrize("seeds", blocks())
def test_random_kills_lose_nothing(
    standing: Federation, record_schedule: Callable[[dict[str, Any]], None], seeds: range
) -> None:
    study = small_study(standing.names, name="tiny-faults", training__local_steps=8)
    standing.reference(study)
    problems = {}
    for seed in seeds:
        schedule = strikes(seed, standing.names)
        started, problem, hits = time.monotonic(), "", 0
        try:
            standing.start_what_ended()
            hits = run_schedule(standing, study, schedule)
        except AssertionError as error:
            problem = problems[seed] = str(error)
            standing.plan.release()
            standing.kill_everything()
        record_schedule(
            {
                "seed": seed,
                "strikes": len(schedule),
                "hits": hits,
                "what": [str(strike) for strike in schedule],
                "seconds": round(time.monotonic() - started, 1),
                "problem": problem,
            }
        )
    assert problems == {}


def test_a_seed_is_a_schedule_and_seeds_reach_everything() -> None:
    sites = ("north", "south")
    assert strikes(7, sites) == strikes(7, sites)
    drawn = [strike for seed in range(200) for strike in strikes(seed, sites)]
    assert {strike.site for strike in drawn} == set(sites)
    assert len({(strike.target, strike.stage) for strike in drawn}) == 5 * 7, (
        "each target, in each stage or any time"
    )
