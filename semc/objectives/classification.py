"""The baseline: cross-entropy on a plain network, no contrastive term, no local state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from semc.config import StudyConfig
from semc.datasets import Batch
from semc.models import SEMCOutput
from semc.objectives.class_loss import ClassLoss
from semc.objectives.objective import LossTerms, Objective


class ClassificationObjective(Objective):
    """``L = mean_b CE(z_b, y_b)`` in the study's form of cross-entropy.

    Args:
        study: The study.
        class_counts: Training images of each study class at this site.
    """

    def __init__(self, study: StudyConfig, class_counts: Sequence[int]) -> None:
        self._class_loss = ClassLoss(study.objective, class_counts)

    def step(self, network: nn.Module, batch: Batch, progress: float) -> LossTerms:
        """Return the batch's mean cross-entropy as `ce`; ``progress`` is not used."""
        output = network(batch.images_BCHW)
        assert isinstance(output, SEMCOutput)
        # SEMCOutput is at least float32; so are the losses, also where the trainer uses mixed precision.
        with torch.autocast(output.logits_BK.device.type, enabled=False):
            total = self._class_loss(output.logits_BK, batch.labels_B).mean()
        use_N = output.gate_weights_BN.detach().mean(0).tolist()
        return LossTerms(total, {"ce": total.item()}, tuple(use_N))
