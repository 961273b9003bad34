"""Training terms: one row each, and the last round's mean over sites and seeds."""

from __future__ import annotations

import numpy as np
import pytest

from semc.reporting.predictions import Predictions
from simulation.arm_run import ArmRun, Curve
from simulation.training_log import last_terms, term_rows


def run(arm: str, seed: int, terms: dict[str, dict[str, Curve]]) -> ArmRun:
    answers = Predictions(arm, seed, "", "north", (0, 1), (0, 1), np.full((2, 2), 0.5, np.float32))
    return ArmRun([answers], {}, 1.0, terms)


def test_the_last_round_of_each_site_counts_and_sites_count_alike() -> None:
    runs = [
        run("silo", 0, {"alpha": {"north": [(1, 0.5), (2, 0.75)], "south": [(1, 0.25)]}}),
        run(
            "silo",
            1,
            {"alpha": {"north": [(1, 1.0)], "south": [(1, 0.5), (2, 0.0)]}, "moe": {"north": [(1, 2.0)]}},
        ),
        run("local", 0, {}),
    ]
    rows = term_rows(runs)
    assert len(rows) == 7
    assert rows.iloc[0].tolist() == ["silo", 0, "north", 1, "alpha", 0.5]
    means = last_terms(rows)
    assert means == {"silo": {"alpha": pytest.approx((0.75 + 0.25 + 1.0 + 0.0) / 4), "moe": 2.0}}


def test_nothing_logged_is_no_table() -> None:
    assert last_terms(term_rows([run("local", 0, {})])) == {}
