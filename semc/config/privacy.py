"""The study's `privacy:` section: what formal guarantee its messages carry."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from semc.config.section import Section

Trainable = Literal["heads", "heads+projection", "adapters", "all"]


class PrivacyConfig(Section):
    """Differential privacy of what leaves a site: per patient, per hospital, against everyone outside it."""

    mode: Literal["none", "patient_dp"] = "none"
    """none = the paper's objective, no formal guarantee, and every report says so; patient_dp = every message about
    training images is (epsilon, delta)-differentially private for whole patients."""
    epsilon: float = Field(default=8.0, gt=0, le=100)
    """Most that the study's rounds together may cost any patient of a site; a plan that costs more is refused."""
    delta: float = Field(default=1e-5, gt=0, lt=0.1)
    """Probability with which the bound may fail; below one over the patients of the smallest site."""
    noise_multiplier: float | None = Field(default=None, ge=0.3, le=1000)
    """sigma: noise in units of the clip norm; `semc-client ledger plan` gives the one for an epsilon."""
    max_grad_norm: float = Field(default=1.0, gt=0, le=1000)
    """C: the norm to which one patient's gradient is clipped, all frames together."""
    patient_fraction: float = Field(default=0.1, gt=0, le=1)
    """q: probability with which each patient enters a step (Poisson sampling)."""
    frames_per_patient: int = Field(default=16, ge=1, le=256)
    """Most frames of a patient in a step, chosen at random; more change the gradient, never the guarantee."""
    trainable: Trainable = "heads"
    """heads = classifiers and gate; heads+projection = also projection and prototypes; adapters = also the experts'
    adapters; all = the whole network. Noise grows with the number of trained weights."""
    min_patients: int = Field(default=100, ge=2, le=1_000_000)
    """Fewest patients, by its own policy's public lower bound, with which a site takes part."""

    @model_validator(mode="after")
    def _consistent(self) -> PrivacyConfig:
        if self.mode == "none":
            if any(getattr(self, name) != field.default for name, field in type(self).model_fields.items()):
                raise ValueError("only mode patient_dp has settings: set mode: patient_dp, or remove them")
            return self
        if self.noise_multiplier is None:
            raise ValueError("patient_dp needs noise_multiplier (`semc-client ledger plan` gives one)")
        if self.delta * self.min_patients >= 1:
            raise ValueError("delta must be below 1 / min_patients: at 1/n publishing one patient is allowed")
        return self

    @property
    def private(self) -> bool:
        """Whether the study's messages carry a guarantee."""
        return self.mode == "patient_dp"
