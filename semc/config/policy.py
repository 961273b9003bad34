"""The hospital's own policy: what studies may do here. It can only make a study stricter, never looser."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from semc.config.section import Section, read_yaml, validate


class BudgetConfig(Section):
    """How much privacy the hospital's patients may lose, over all rounds, runs and studies."""

    epsilon_total: float = Field(gt=0, le=100)
    """Most that any patient may be charged for everything that ever leaves, at `delta`."""
    epsilon_per_study: float | None = Field(default=None, gt=0, le=100)
    """Most for one study; absent: only the total and the study's own limit count."""
    delta: float = Field(default=1e-5, gt=0, lt=0.1)
    """Probability with which the bound may fail; below 1 / patients, fixed when the ledger is made."""
    min_noise_multiplier: float = Field(default=0.5, ge=0.3, le=1000)
    """Least noise a study may propose, in units of the clip norm."""
    max_patient_fraction: float = Field(default=1.0, gt=0, le=1)
    """Largest sampling rate a study may propose."""
    max_steps_per_round: int = Field(default=10_000, ge=1)
    """Most noisy steps of one round."""


class DisclosureConfig(Section):
    """Small-cell rules for evaluation metrics, counted in patients."""

    min_cell: int = Field(default=10, ge=5, le=100)
    """A class with fewer test patients has no recall of its own."""
    min_evaluation_patients: int = Field(default=20, ge=5, le=10_000)
    """With fewer test patients no metric leaves at all."""
    max_evaluations: int = Field(default=10, ge=0, le=10_000)
    """Most answers about the test patients over all studies: several about one fixed set can be compared."""


class SitePolicy(Section):
    """`policy.yaml`: owned by the hospital, never sent."""

    patients: int = Field(ge=2)
    """A public, rounded-down number of training patients; the exact one is never used outside."""
    modes: tuple[Literal["none", "patient_dp"], ...] = ("none", "patient_dp")
    """Privacy modes in which this hospital takes part."""
    min_patients: int = Field(default=100, ge=2)
    """Below this many patients the hospital takes part in no study with patient-level privacy."""
    budget: BudgetConfig | None = None
    """Absent: no study with patient-level privacy."""
    accept_unprotected_history: bool = False
    """Allow patient-level privacy although a study in mode none was trained on these patients before. What that study
    sent is covered by no bound, so the guarantee then speaks of later messages only."""
    disclosure: DisclosureConfig = DisclosureConfig()

    @model_validator(mode="after")
    def _delta_means_something(self) -> SitePolicy:
        if self.budget is not None and self.budget.delta * self.patients >= 1:
            raise ValueError(
                "budget.delta must be below 1 / patients: at 1/n publishing one patient is allowed"
            )
        return self


def load_policy(path: Path) -> SitePolicy:
    """Load a policy file.

    Raises:
        SemcError: CONFIG_NOT_FOUND or CONFIG_INVALID.
    """
    return validate(SitePolicy, read_yaml(path, "policy"), "policy")
