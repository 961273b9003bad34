"""Batch-norm statistics of given weights from given images, without gradients or labels.

The running statistics a site's training leaves belong to its own last weights. The federation's averaged weights have
other activations, so they are measured anew before they are judged, as weight averaging always needs (Izmailov et al.
2018, "Averaging weights leads to wider optima", section 3.2). The statistics are a site's own and stay there.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from semc.datasets import Batch
from semc.training.mode import in_mode


def reestimate_statistics(network: nn.Module, batches: Iterable[Batch], device: torch.device) -> int:
    """Replace every batch norm's running statistics by their mean over some batches.

    Args:
        network: On `device`; nothing but running statistics and counters changes.
        batches: Images as in training, at least one batch; labels are not looked at.
        device: Where to compute.

    Returns:
        Number of images seen; 0 leaves the statistics as they were.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    num_images = 0
    try:
        with in_mode(network, training=True), torch.no_grad():
            for batch in batches:
                if num_images == 0:
                    for norm in norms:
                        norm.reset_running_stats()
                        norm.momentum = None  # torch's cumulative average
                network(batch.images_BCHW.to(device, non_blocking=True))
                num_images += len(batch.images_BCHW)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return num_images
