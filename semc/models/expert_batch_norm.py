"""Batch norm over the experts' stacked maps, one set of statistics per expert chunk.

A pooled batch norm over all N*B maps would mix the experts' distributions and is a different network (the
training outputs differ by 0.58 in float64). Here every chunk is normalised by its own batch statistics,
exactly as N separate calls would, but in a single kernel. With one module for all experts (`samc_bn: shared`,
the released code) the running statistics see the chunks one after the other, as N calls would update them;
evaluation then uses their blend. With one module per expert (`per_expert`) each keeps its own parameters and
statistics.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class ExpertBatchNorm(nn.Module):
    """Batch norm of [C, N*B*P] channel-major values, per expert chunk.

    Args:
        channels: C.
        num_experts: N, the number of chunks.
        per_expert: One batch norm per expert instead of one for all.
    """

    def __init__(self, channels: int, num_experts: int, *, per_expert: bool) -> None:
        super().__init__()
        self.num_experts = num_experts
        self.norms = nn.ModuleList(nn.BatchNorm1d(channels) for _ in range(num_experts if per_expert else 1))

    def forward(self, values_CL: Tensor, positions: int) -> Tensor:
        """Normalise [C, L], L = N*B*P expert-major, to the same shape; `positions` P is :class:`ExpertGroupNorm`'s.

        Raises:
            ValueError: In training with one value per channel and expert (a batch of one image).
        """
        # [1, C*N, B*P]: every (channel, expert) pair is a channel of one ordinary batch-norm call.
        channels_1XL = values_CL.reshape(1, len(values_CL) * self.num_experts, -1)
        weight_X, bias_X = self._stacked("weight"), self._stacked("bias")
        epsilon = self._norm(0).eps
        if self.training:
            # Momentum 1 turns the running buffers into this batch's mean and unbiased variance.
            mean_X, variance_X = torch.zeros_like(weight_X), torch.zeros_like(weight_X)
            output = functional.batch_norm(
                channels_1XL, mean_X, variance_X, weight_X, bias_X, True, 1.0, epsilon
            )
            self._track(mean_X.detach(), variance_X.detach())
        else:
            mean_X, variance_X = self._stacked("running_mean"), self._stacked("running_var")
            output = functional.batch_norm(
                channels_1XL, mean_X, variance_X, weight_X, bias_X, False, 0.0, epsilon
            )
        return output.view_as(values_CL)

    def _norm(self, expert: int) -> nn.BatchNorm1d:
        return cast("nn.BatchNorm1d", self.norms[expert % len(self.norms)])

    def _stacked(self, name: str) -> Tensor:
        """Return one parameter or buffer of all experts, flattened from [C, N]."""
        per_expert = [cast("Tensor", getattr(self._norm(n), name)) for n in range(self.num_experts)]
        return torch.stack(per_expert, dim=1).flatten()

    @torch.no_grad()
    def _track(self, mean_X: Tensor, variance_X: Tensor) -> None:
        """Update the running statistics, expert by expert."""
        means_CN, variances_CN = (values.view(-1, self.num_experts) for values in (mean_X, variance_X))
        for n in range(self.num_experts):
            norm = self._norm(n)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked += 1
            # momentum None is torch's cumulative average (adaptation to a new site).
            momentum = 1.0 / int(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
            norm.running_mean.lerp_(means_CN[:, n], momentum)
            norm.running_var.lerp_(variances_CN[:, n], momentum)
