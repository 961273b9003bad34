"""Batch-norm statistics of given weights from given images, without gradients or labels.

The running statistics a site's training leaves belong to its own last weights. The federation's averaged weights have
other activations, so they are measured anew before they are judged, as weight averaging always needs (Izmailov et al.
2018, "Averaging weights leads to wider optima", section 3.2). The statistics are a site's own and stay there.

Shape legend: C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from semc.datasets import Batch
from semc.models.batch_statistics import batch_norms, normalised_by_batch, statistics_kept

_SMALLEST_BATCH: Final = 2


@dataclass(frozen=True)
class NormStatistics:
    """One batch norm's running statistics."""

    mean_C: Tensor
    variance_C: Tensor


def statistics_of(network: nn.Module) -> dict[str, NormStatistics]:
    """Return copies of all running statistics by layer name."""
    found = {}
    for name, norm in batch_norms(network).items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        found[name] = NormStatistics(norm.running_mean.clone(), norm.running_var.clone())
    return found


@torch.no_grad()
def set_statistics(network: nn.Module, statistics: Mapping[str, NormStatistics]) -> None:
    """Copy statistics into a network, layer by layer name."""
    for name, norm in batch_norms(network).items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(statistics[name].mean_C)
        norm.running_var.copy_(statistics[name].variance_C)


def measured_statistics(
    network: nn.Module, batches: Iterable[Batch], device: torch.device
) -> tuple[dict[str, NormStatistics], int]:
    """Return the mean over all batches of their statistics, and the images seen; the network stays as it was.

    Args:
        network: On `device`; random streams are not touched either.
        batches: Every one counts alike (torch's cumulative average); labels are not looked at.
        device: Where to compute.

    Raises:
        ValueError: No batch, or one of a single image.
    """
    norms = batch_norms(network)
    momenta = {name: norm.momentum for name, norm in norms.items()}
    num_seen = 0
    try:
        with statistics_kept(network), normalised_by_batch(network), torch.no_grad():
            for norm in norms.values():
                norm.reset_running_stats()
                norm.momentum = None  # torch's cumulative average
            for batch in batches:
                if len(batch.images_BCHW) < _SMALLEST_BATCH:
                    raise ValueError("a batch of one image has no statistics")
                network(batch.images_BCHW.to(device, non_blocking=True))
                num_seen += len(batch.images_BCHW)
            if num_seen == 0:
                raise ValueError("statistics need at least one batch")
            return statistics_of(network), num_seen
    finally:
        for name, norm in norms.items():
            norm.momentum = momenta[name]


def reestimate_statistics(network: nn.Module, batches: Iterable[Batch], device: torch.device) -> int:
    """Replace every batch norm's running mean and variance by those of some batches; arguments and errors as above.

    Returns:
        Number of images seen.
    """
    statistics, num_images = measured_statistics(network, batches, device)
    set_statistics(network, statistics)
    return num_images
