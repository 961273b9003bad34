"""The study's `training:` section: local optimisation at each site."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from semc.config.section import Section


class TrainingConfig(Section):
    """SGD with momentum, warm-up and a schedule over the whole study, in fixed local steps or epochs per round."""

    batch_size: int = Field(default=16, ge=2, le=1024)
    """Images per step; a last batch of one image is merged into its neighbour, nothing is dropped."""
    local_steps: int | None = Field(default=None, ge=1, le=100_000)
    """Steps per round, the same at every site whatever its size."""
    local_epochs: int | None = Field(default=None, ge=1, le=1000)
    """Passes over the site's training images per round; give either this or local_steps."""
    learning_rate: float = Field(default=1e-3, gt=0, le=10)
    """Peak learning rate."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """SGD momentum."""
    weight_decay: float = Field(default=1e-4, ge=0, le=1)
    """L2 penalty."""
    weight_decay_on: Literal["weights", "all"] = "weights"
    """weights = neither norms nor biases; all = every parameter, as the paper's and the released code's optimiser."""
    schedule: Literal["cosine", "reference", "constant"] = "cosine"
    """cosine over all rounds; reference = the released code's epochs."""
    warmup_fraction: float = Field(default=0.05, ge=0, le=0.5)
    """Share of the study's steps with a linearly rising learning rate."""
    gradient_clip: float | None = Field(default=None, gt=0)
    """Largest global gradient norm."""
    amp: Literal["auto", "off"] = "auto"
    """auto = mixed precision (bfloat16 or float16 with scaling) on a GPU; logits and losses stay float32."""

    @model_validator(mode="after")
    def _steps_or_epochs(self) -> TrainingConfig:
        if (self.local_steps is None) == (self.local_epochs is None):
            raise ValueError("give exactly one of local_steps and local_epochs")
        return self
