"""The utility experiment: the mechanism's own trainer, one row for each size and epsilon, no noise only here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from semc.config import parse_study
from semc.exit_codes import ExitCode, SemcError
from semc.privacy.accounting import Mechanism, rdp_epsilon
from simulation.utility import UtilityRequest, utility_tasks
from simulation.utility_cli import _numbers
from simulation.utility_report import num_trained, utility_rows, write_utility

STUDY = parse_study("""
name: small
seed: 3
data: {classes: [head, abdomen, femur], image_size: 32}
model: {backbone: tiny, experts: 2, samc_expansion: 1, embedding_dim: 8}
training: {local_steps: 2, learning_rate: 0.5, momentum: 0.0}
federation: {sites: [north, south], rounds: 2}
privacy: {mode: patient_dp, noise_multiplier: 4.0, patient_fraction: 0.5, min_patients: 6, delta: 1.0e-3}
pretraining: {centres: 1, patients: 4, frames_per_patient: 2, steps: 2, batch_size: 4}
""")


def test_one_row_for_each_size_and_epsilon_with_the_noise_that_the_plan_needs(tmp_path: Path) -> None:
    request = UtilityRequest(STUDY, (8,), (math.inf, 8.0, 1.0), (0,), test_patients=6, frames_per_patient=2)
    torch.manual_seed(0)
    tasks = utility_tasks(request, tmp_path)
    runs = {key: task.train(tmp_path / "work") for key, task in tasks.items()}
    rows = utility_rows(request, runs)
    assert [(row.patients, row.epsilon) for row in rows] == [(8, math.inf), (8, 8.0), (8, 1.0)]
    assert rows[0].noise_multiplier == 0
    for row in rows[1:]:
        cost = rdp_epsilon([Mechanism(row.noise_multiplier, 0.5, 4)], 1e-3)
        assert row.epsilon * 0.97 < cost <= row.epsilon
        assert row.against_no_noise is not None
    text = write_utility(request, rows, tmp_path)
    assert "no noise" in text
    content = json.loads((tmp_path / "utility.json").read_text())
    assert content["rows"][0]["epsilon"] is None
    # 2 experts x (128 channels + 1) x 3 classes, and the gate's 2 x (128 + 1)
    assert content["trained_values"] == num_trained(request) == 2 * 129 * 3 + 2 * 129


def test_a_study_without_privacy_and_words_that_are_no_numbers_are_refused() -> None:
    plain = parse_study(
        "{name: p, data: {classes: [a, b]}, training: {local_steps: 1}, federation: {sites: [n]}}"
    )
    with pytest.raises(SemcError) as caught:
        UtilityRequest(plain, (8,), (1.0,), (0,))
    assert caught.value.code is ExitCode.USAGE
    assert _numbers("inf,8", "epsilons", float) == (math.inf, 8.0)
    for text in ("", "eight", "-1", "nan"):
        with pytest.raises(SemcError):
            _numbers(text, "epsilons", float)
