"""Batch-norm statistics of a hospital that took no part in training, from its unlabelled images (AdaBN).

Li et al. 2018, "Adaptive batch normalization for practical domain adaptation": weights stay, every batch norm's mean
and variance are measured anew. A federation that averaged its statistics gives a prior worth N0 images; where
statistics never left their sites there is none.

Shape legend: C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, Literal

import torch
from torch import nn

from semc.datasets import Batch
from semc.models import SEMCOutput
from semc.models.batch_statistics import batch_norms
from semc.training.batch_norm import NormStatistics, measured_statistics, set_statistics
from semc.training.mode import in_mode

PRIOR_COUNT: Final = 32.0
"""N0: how many images the federation's mean statistics count for."""
MINIMUM_WITHOUT_PRIOR: Final = 64
"""Fewest images where there is no prior; fewer describe the patients drawn, not the scanner."""


@dataclass(frozen=True)
class LayerDrift:
    """How far one batch norm's input lies from the reference."""

    layer: str
    """The module's dotted name."""
    drift: float
    """Mean over channels of |mu - mu_reference| / sigma_reference, with the norm's own eps under the root."""


@dataclass(frozen=True)
class AdaptationReport:
    """What re-estimating a network's statistics found."""

    num_images: int
    """Images n of one pass."""
    passes: int
    prior_count: float
    """N0; 0 without a prior."""
    reference: Literal["prior", "halves", "none"]
    """What the drift is measured against: the prior, or one half of the site's images against the other."""
    layers: tuple[LayerDrift, ...]
    """In the network's order; empty without a reference."""

    @property
    def mean_drift(self) -> float | None:
        """Mean over layers; None without a reference."""
        return sum(entry.drift for entry in self.layers) / len(self.layers) if self.layers else None

    @property
    def largest(self) -> LayerDrift | None:
        """The layer that moved most; None without a reference."""
        return max(self.layers, key=lambda entry: entry.drift, default=None)


def adapt_statistics(
    network: nn.Module,
    passes: Sequence[Iterable[Batch]],
    device: torch.device,
    *,
    prior: Mapping[str, NormStatistics] | None = None,
    prior_count: float = PRIOR_COUNT,
    halves: tuple[Iterable[Batch], Iterable[Batch]] | None = None,
) -> AdaptationReport:
    """Replace a network's batch-norm statistics by those of a site's images, blended with a prior.

    Within a pass every batch counts alike (torch's cumulative average), and so does every pass. Batches should be of
    about one size and mix patients (:func:`semc.datasets.adaptation_batches`); passes differ only in that mix.

    Args:
        network: On `device`; nothing but running means and variances changes, modes included.
        passes: Per pass its batches, the same images each time; labels are not looked at. Generators are fine.
        device: Where to compute.
        prior: The federation's statistics (:func:`statistics_of`), or None.
        prior_count: Images N0 the prior counts for; without effect where there is no prior.
        halves: Where there is no prior: batches of the images of one half of the site's patients, and of the other.

    Returns:
        Counts, and per layer the drift of the site's own statistics, before blending, from the reference.

    Raises:
        ValueError: No pass, a batch of a single image, or a prior of another network.
    """
    if not passes:
        raise ValueError("statistics need at least one pass")
    if prior is not None and prior.keys() != batch_norms(network).keys():
        raise ValueError("the prior belongs to another network")
    spread: dict[str, float] = {}
    if prior is None and halves is not None:
        first, second = (measured_statistics(network, half, device)[0] for half in halves)
        spread = _drifts(network, second, first)
    own, num_seen = measured_statistics(network, chain.from_iterable(passes), device)
    num_images = num_seen // len(passes)
    if prior is not None:
        spread = _drifts(network, own, prior)
        own = {name: blend_statistics(prior[name], own[name], prior_count, num_images) for name in own}
    set_statistics(network, own)
    return AdaptationReport(
        num_images=num_images,
        passes=len(passes),
        prior_count=0.0 if prior is None else prior_count,
        reference="prior" if prior is not None else "halves" if halves is not None else "none",
        layers=tuple(LayerDrift(name, drift) for name, drift in spread.items()),
    )


def blend_statistics(
    prior: NormStatistics, new: NormStatistics, prior_count: float, num_images: float
) -> NormStatistics:
    """Pool two groups' statistics by their sizes.

    ``mu = (N0 mu0 + n mu1) / (N0 + n)``; by the law of total variance (within the groups plus between their two
    means) ``v = (N0 (v0 + (mu0 - mu)^2) + n (v1 + (mu1 - mu)^2)) / (N0 + n)``.

    Args:
        prior: mu0, v0.
        new: mu1, v1.
        prior_count: N0, at least 0.
        num_images: n, at least 0; not both 0.
    """
    share = num_images / (prior_count + num_images)
    mean_C = torch.lerp(prior.mean_C, new.mean_C, share)
    within_C = torch.lerp(prior.variance_C, new.variance_C, share)
    between_C = share * (1.0 - share) * (new.mean_C - prior.mean_C).square()
    return NormStatistics(mean_C, within_C + between_C)


def predicted_counts(
    network: nn.Module, batches: Iterable[Batch], num_classes: int, device: torch.device
) -> tuple[int, ...]:
    """Count how many images a network calls each class; labels are not looked at.

    Returns:
        Images per class, in the study's order.
    """
    counts_K = torch.zeros(num_classes, dtype=torch.int64)
    with in_mode(network, training=False), torch.no_grad():
        for batch in batches:
            output: SEMCOutput = network(batch.images_BCHW.to(device, non_blocking=True))
            counts_K += torch.bincount(output.logits_BK.argmax(dim=1).cpu(), minlength=num_classes)
    return tuple(counts_K.tolist())


def _drifts(
    network: nn.Module, new: Mapping[str, NormStatistics], reference: Mapping[str, NormStatistics]
) -> dict[str, float]:
    """Return mean_c |mu - mu0| / sqrt(v0 + eps) by layer: eps as in the norm itself, so a dead channel counts 0."""
    return {
        name: (
            (new[name].mean_C - reference[name].mean_C).abs() / (reference[name].variance_C + norm.eps).sqrt()
        )
        .mean()
        .item()
        for name, norm in batch_norms(network).items()
    }
