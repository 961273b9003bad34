"""Random kills at random moments, from seeds: no round lost, no reply counted twice, no orphan, no wrong outcome."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults.federation import Federation
from tests.faults.schedules import QUICK_SEEDS, run_seeds, strikes

BLOCK = 10
FIRST = int(os.environ.get("FAULT_FROM", "0"))
"""Seed to begin with: a long run that was interrupted goes on from there."""
LAST = FIRST + int(os.environ.get("FAULT_SCHEDULES", "40"))
SEEDS = [seed for seed in range(FIRST, LAST) if seed not in QUICK_SEEDS]
"""Those left out are in test_quick.py."""
BLOCKS = [SEEDS[start : start + BLOCK] for start in range(0, len(SEEDS), BLOCK)]
"""The unit that is handed to a worker."""


@pytest.mark.faults
@pytest.mark.timeout(600 * BLOCK)
@pytest.mark.parametrize("seeds", BLOCKS, ids=lambda seeds: f"from {seeds[0]}")
def test_random_kills_lose_nothing(
    standing: Federation, record_schedule: Callable[[dict[str, Any]], None], seeds: list[int]
) -> None:
    assert run_seeds(standing, seeds, record_schedule) == {}


def test_a_seed_is_a_schedule_and_seeds_reach_everything() -> None:
    sites = ("north", "south")
    assert strikes(7, sites) == strikes(7, sites)
    drawn = [strike for seed in range(200) for strike in strikes(seed, sites)]
    assert {strike.site for strike in drawn} == set(sites)
    assert len({(strike.target, strike.stage) for strike in drawn}) == 5 * 7, (
        "each target, in each stage or any time"
    )
