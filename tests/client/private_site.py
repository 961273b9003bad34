"""The smallest private study, and a phantom hospital with a policy and a ledger for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from client.privacy_gate import ledger_place
from semc.config import SiteConfig, load_site
from semc.privacy.ledger import Ledger
from tests.client.small_study import write_site

PRIVATE_TEXT = """
name: private
preset: robust
seed: 3
data: {classes: [head, abdomen, femur], image_size: 32}
model: {backbone: tiny, experts: 2, samc_expansion: 1, embedding_dim: 8}
training: {local_steps: 2, learning_rate: 0.5, momentum: 0.9}
federation: {sites: [north, south], rounds: 2}
privacy: {mode: patient_dp, noise_multiplier: 4.0, patient_fraction: 0.5, min_patients: 6, delta: 1.0e-3}
"""

TEST_PATIENTS = 12
"""Enough for the small-cell rules below: six have each of the three planes, or more."""


def private_site(
    folder: Path, *, name: str = "north", epsilon_total: float = 8.0, ledger: bool = True, **policy: Any
) -> SiteConfig:
    """Write a phantom hospital with its policy, and a ledger unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    site = load_site(write_site(folder, name, test_patients=TEST_PATIENTS))
    content = {
        "patients": 6,
        "min_patients": 6,
        "budget": {"epsilon_total": epsilon_total, "delta": 1e-3},
        "disclosure": {"min_cell": 5, "min_evaluation_patients": 5},
        **policy,
    }
    site.policy.write_text(yaml.safe_dump(content), encoding="utf-8")
    if ledger:
        Ledger.create(ledger_place(site), site=name, patients=6, delta=1e-3, epsilon_total=epsilon_total)
    return site
