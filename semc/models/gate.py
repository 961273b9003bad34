"""The gate: how much each expert counts for an image (eq. 16).

Deviations from the released code, whose router sits outside the model, untrained and unsaved, and samples
noise at test time as well: here the router is a child of the network, Gumbel noise exists in training only,
and evaluation depends on image and weights alone. `gate_eval: sampled_mean` imitates the noisy released gate
by the mean over seeded draws, the same for every image, so that scores do not depend on the batch either.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from semc.config import ModelConfig

EVALUATION_SEED = 0
"""Seed of the draws of `sampled_mean`."""


class Gate(nn.Module):
    """Softmax router w = softmax((W_g GAP + b + noise) / τ); w = 1/N without a router.

    A single expert, and `gate: mean`, need no router and have no parameters.

    Args:
        channels: C of the pooled feature.
        config: The `gate_*` switches and the number of experts.
    """

    def __init__(self, channels: int, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.progress = 0.0
        self.router: nn.Linear | None = None
        if config.experts > 1 and config.gate != "mean":
            self.router = nn.Linear(channels, config.experts)
            self.router.requires_grad_(config.gate_trained)

    def forward(self, pooled_BC: Tensor) -> Tensor:
        """Return the expert weights [B, N]; rows sum to 1."""
        if self.router is None:
            return pooled_BC.new_full((len(pooled_BC), self.config.experts), 1.0 / self.config.experts)
        scores_BN = self.router(pooled_BC)
        if not self.training:
            return self._evaluate(scores_BN)
        if self.config.gate == "gumbel":
            scores_BN = scores_BN + _gumbel(torch.empty_like(scores_BN).exponential_())
        return functional.softmax(scores_BN / self.temperature, dim=1)

    @property
    def temperature(self) -> float:
        """The training temperature τ_g at the study's present progress."""
        start, end = self.config.gate_temperature, self.config.gate_temperature_end
        return start + (end - start) * self.progress

    def _evaluate(self, scores_BN: Tensor) -> Tensor:
        # The end temperature whatever the progress: predictions are a function of the weights alone.
        temperature = self.config.gate_temperature_end
        if self.config.gate_eval == "hard":
            return functional.one_hot(scores_BN.argmax(dim=1), self.config.experts).to(scores_BN.dtype)
        if self.config.gate_eval == "sampled_mean" and self.config.gate == "gumbel":
            generator = torch.Generator().manual_seed(EVALUATION_SEED)
            draws = torch.empty(self.config.gate_eval_draws, 1, self.config.experts)
            noise_S1N = _gumbel(draws.exponential_(generator=generator)).to(scores_BN)
            return functional.softmax((scores_BN + noise_S1N) / temperature, dim=2).mean(dim=0)
        return functional.softmax(scores_BN / temperature, dim=1)


def _gumbel(exponential: Tensor) -> Tensor:
    """Return standard Gumbel noise from standard exponential noise."""
    return -exponential.log()
