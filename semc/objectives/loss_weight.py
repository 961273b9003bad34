"""How the classification and the contrastive loss are weighed, per image (eq. 19).

Equation 19 alone is linear in alpha: ``dL/d alpha_b = (l_moe,b - l_mc,b) / B`` is free of alpha, so a learned
alpha always runs into a corner, and since ``l_sup >= log|P|`` (5 to 7 nats with a full queue) it is the one
that switches the contrastive branch off. The other forms have no such corner.

Shape legend: B images, A outputs of the alpha network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from semc.config import ObjectiveConfig
from semc.losses import ContrastiveLoss
from semc.objectives.local_tensors import check_tensors, copy_tensors

LOG_SCALE_BOUNDS = (-1.0, 3.0)
"""Bounds of s in `uncertainty`: weights e^-s between 0.05 and 2.7."""

PRIOR_DECAY = 0.99
"""Per-step decay of the running mean losses of `prior`."""


@dataclass(frozen=True)
class WeighedLoss:
    """Both losses as one."""

    total: Tensor
    """Scalar, mean over the batch."""
    alpha_B: Tensor
    """Effective share of the classification loss, detached; 1 where an image has no contrastive term."""


class LossWeight:
    """The study's form of alpha.

    An image without a contrastive term has nothing to weigh: its alpha is 1 in every form.

    Args:
        config: The study's objective section.
    """

    def __init__(self, config: ObjectiveConfig) -> None:
        self._config = config
        self._running_means = torch.zeros(2)
        """Decayed mean of (l_moe, shifted l_mc), used by `prior`; 0 = none yet."""
        self._pending_means: Tensor | None = None

    def __call__(self, moe_B: Tensor, mc: ContrastiveLoss, alpha_raw_BA: Tensor | None) -> WeighedLoss:
        """Weigh the two losses of every image.

        Args:
            moe_B: Classification loss l_moe.
            mc: Contrastive loss l_mc, one row per image.
            alpha_raw_BA: Raw output of the alpha network; None where the form has none.

        Raises:
            ValueError: The form needs an alpha network that the network at hand does not have.
        """
        form = self._config.alpha
        if form == "fixed":
            return self._mix(moe_B, mc.loss_R, mc.active_R, torch.full_like(moe_B, self._config.alpha_fixed))
        if form == "prior":
            return self._mix(moe_B, mc.loss_R, mc.active_R, self._prior_alpha(moe_B.detach(), mc))
        if alpha_raw_BA is None:
            raise ValueError(f"alpha '{form}' needs an alpha network, but the network has none")
        if form == "uncertainty":
            return self._uncertainty(moe_B, mc, alpha_raw_BA)
        alpha_B = alpha_raw_BA[:, 0].sigmoid()
        if form == "reference":
            return self._reference(moe_B, mc, alpha_B)
        if self._config.alpha_clamp is not None:
            alpha_B = alpha_B.clamp(*self._config.alpha_clamp)
        mc_B = mc.shifted if self._config.alpha_shift else mc.loss_R
        return self._mix(moe_B, mc_B, mc.active_R, alpha_B)

    def after_step(self) -> None:
        """Take over the running means of the last call; a non-finite one (skipped step) is dropped."""
        if self._pending_means is not None:
            finite = torch.isfinite(self._pending_means)
            self._running_means = torch.where(finite, self._pending_means, self._running_means)
            self._pending_means = None

    def state_dict(self) -> dict[str, Tensor]:
        """Return the running mean losses; empty unless the form uses them."""
        return copy_tensors(self._tensors())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore the running mean losses.

        Raises:
            SemcError: CHECKPOINT_INVALID if the state does not fit.
        """
        check_tensors(state, self._tensors())
        if state:
            self._running_means = state["running_means"].clone()

    def _tensors(self) -> dict[str, Tensor]:
        return {"running_means": self._running_means} if self._config.alpha == "prior" else {}

    @staticmethod
    def _mix(moe_B: Tensor, mc_B: Tensor, active_B: Tensor, alpha_B: Tensor) -> WeighedLoss:
        """``L = mean_b[alpha_b l_moe,b + (1 - alpha_b) l_mc,b]`` (eq. 19)."""
        alpha_B = torch.where(active_B, alpha_B, 1.0)
        return WeighedLoss((alpha_B * moe_B + (1.0 - alpha_B) * mc_B).mean(), alpha_B.detach())

    @staticmethod
    def _reference(moe_B: Tensor, mc: ContrastiveLoss, alpha_B: Tensor) -> WeighedLoss:
        """``L = mean_b[alpha_b L_moe + (1 - alpha_b) L_mc]`` with scalar losses, as in the released code."""
        mc_mean = mc.loss_R.sum() / mc.active_R.sum().clamp(min=1)
        return WeighedLoss((alpha_B * moe_B.mean() + (1.0 - alpha_B) * mc_mean).mean(), alpha_B.detach())

    @staticmethod
    def _uncertainty(moe_B: Tensor, mc: ContrastiveLoss, alpha_raw_BA: Tensor) -> WeighedLoss:
        """``L = mean_b sum_k [e^-s_k(b) l_k,b + s_k(b)]``, k in {moe, mc}, l_mc minus its floor.

        Stationary at ``s_k = log l_k``. The bound on s is smooth, so s is never stuck on it; raw output 0
        gives s = 0, that is weight 1. Reported is ``e^-s_moe / (e^-s_moe + e^-s_mc)``.
        """
        low, high = LOG_SCALE_BOUNDS
        offset = math.log(-low / high)
        s_B2 = low + (high - low) * torch.sigmoid(alpha_raw_BA + offset)
        losses_B2 = torch.stack([moe_B, mc.shifted], dim=1)
        present_B2 = torch.stack([torch.ones_like(mc.active_R), mc.active_R], dim=1)
        terms_B2 = torch.where(present_B2, torch.exp(-s_B2) * losses_B2 + s_B2, 0.0)
        share_B = torch.sigmoid(s_B2[:, 1] - s_B2[:, 0]).detach()
        return WeighedLoss(terms_B2.sum(1).mean(), torch.where(mc.active_R, share_B, 1.0))

    def _prior_alpha(self, moe_B: Tensor, mc: ContrastiveLoss) -> Tensor:
        """``alpha_b = sigmoid(logit alpha_0 + (r_mc,b - r_moe,b) / eta)``, closed form without gradient.

        r is the loss (l_mc minus its floor) over its running mean, which includes the batch at hand.
        """
        mc_B = mc.shifted.detach()
        batch_means = torch.stack([moe_B.mean(), mc.mean_shifted()])
        before = self._running_means.to(batch_means)
        means = torch.where(before > 0, before.lerp(batch_means, 1.0 - PRIOR_DECAY), batch_means)
        means[1] = torch.where(mc.active_R.any(), means[1], before[1])
        self._pending_means = means.float().cpu()
        moe_scale, mc_scale = means.clamp(min=1e-6)
        alpha_0 = torch.tensor(self._config.alpha_fixed, dtype=moe_B.dtype, device=moe_B.device)
        return torch.sigmoid(
            alpha_0.logit() + (mc_B / mc_scale - moe_B / moe_scale) / self._config.alpha_prior_eta
        )
