"""The objective of patient-level privacy: SEMC's losses where each is a function of one patient.

    L = mean_f[ CE(z_f, y_f) + w_ce mean_n CE(z_fn, y_f) + lambda mean_n l_fn ]

over one patient's frames f, with l_fn of :func:`semc.losses.prototype_contrast`. It is not the paper's objective:
queue, in-batch contrast, class weights and the weighing by alpha couple patients or use private counts, and are gone.

Shape legend: B frames of one patient, N experts, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from semc.config import StudyConfig
from semc.datasets import Batch
from semc.losses import cross_entropy, prototype_contrast
from semc.models import SEMCOutput
from semc.objectives.objective import LossTerms, Objective


class SemcDpObjective(Objective):
    """Cross-entropy of the fused and of the experts' logits, and the contrast against learnable prototypes.

    It has no local state: nothing of a patient outlives its step.

    Args:
        study: The study; `expert_ce_weight` is w_ce, `contrast_weight` lambda, `temperature` tau.
    """

    def __init__(self, study: StudyConfig) -> None:
        self._config = study.objective

    def loss(self, output: SEMCOutput, labels_B: Tensor) -> Tensor:
        """Return the scalar L of one patient's frames.

        Args:
            output: The network's, in evaluation mode (no batch statistics, no gate noise).
            labels_B: Class ids, int64.
        """
        config, experts = self._config, len(output.expert_logits_NBK)
        total = cross_entropy(output.logits_BK, labels_B).mean()
        if config.expert_ce_weight > 0:
            expert_A = cross_entropy(output.expert_logits_NBK.flatten(0, 1), labels_B.repeat(experts))
            total = total + config.expert_ce_weight * expert_A.mean()
        if config.mc and config.contrast_weight > 0:
            assert output.embeddings_NBD is not None
            assert output.prototypes_KD is not None
            contrast = prototype_contrast(
                output.embeddings_NBD, labels_B, output.prototypes_KD, config.temperature
            )
            total = total + config.contrast_weight * contrast.loss_R.mean()
        return total

    def step(self, network: nn.Module, batch: Batch, progress: float) -> LossTerms:
        """Return the loss of a batch that holds the frames of one patient; no parts are reported."""
        output = network(batch.images_BCHW)
        assert isinstance(output, SEMCOutput)
        with torch.autocast(output.logits_BK.device.type, enabled=False):
            total = self.loss(output, batch.labels_B)
        use_N = output.gate_weights_BN.detach().mean(0).tolist()
        return LossTerms(total, {}, tuple(use_N))
