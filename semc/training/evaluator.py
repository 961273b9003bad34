"""Counting right and wrong answers: eval mode, float32, every image once, nothing changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from semc.datasets import Batch
from semc.metrics import Confusion
from semc.models import SEMCOutput
from semc.training.mode import in_mode


@dataclass(frozen=True)
class Evaluation:
    """A network's answers on one split."""

    confusion: Confusion
    loss: float | None
    """Mean plain cross-entropy of the fused logits; None without images."""
    probabilities_BK: NDArray[np.float32] = field(repr=False, compare=False)
    """Softmax of the fused logits [B, K], one row an image in the order of the batches; it stays where it is computed:
    a site answers with counts."""


def evaluate(
    network: nn.Module, batches: Iterable[Batch], num_classes: int, device: torch.device
) -> Evaluation:
    """Classify every image of a split.

    Args:
        network: On `device`; its mode, buffers and weights are as before afterwards.
        batches: The split, every image once.
        num_classes: K.
        device: Where to compute.

    Returns:
        The confusion matrix, the mean loss and every image's probabilities.
    """
    confusion = Confusion.empty(num_classes)
    loss_sum = 0.0
    probabilities: list[torch.Tensor] = []
    with in_mode(network, training=False), torch.no_grad():
        for batch in batches:
            output: SEMCOutput = network(batch.images_BCHW.to(device, non_blocking=True))
            logits_BK = output.logits_BK.float().cpu()
            loss_sum += functional.cross_entropy(logits_BK, batch.labels_B.cpu(), reduction="sum").item()
            probabilities.append(logits_BK.softmax(dim=1))
            predicted_B = logits_BK.argmax(dim=1)
            confusion += Confusion.from_predictions(
                batch.labels_B.tolist(), predicted_B.tolist(), num_classes
            )
    return Evaluation(
        confusion=confusion,
        loss=loss_sum / confusion.num_examples if confusion.num_examples else None,
        probabilities_BK=torch.cat([torch.empty(0, num_classes), *probabilities]).numpy(),
    )
