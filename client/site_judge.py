"""How good given weights are at one site: counts on its validation and test images, with its own statistics."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import nn

from client.round_update import MetricValue
from semc.config import SiteConfig, StudyConfig
from semc.datasets import ManifestRow, SiteData, SiteImages, evaluation_batches, training_batches
from semc.protocol import TEST_CONFUSION, VALIDATION_CONFUSION
from semc.seed import derive_seed
from semc.training import evaluate, reestimate_statistics

_FORWARD_BATCH: Final = 32
"""Images per step where nothing is trained; a study's small batches would only make it slower."""
_STATISTICS_IMAGES: Final = 128
"""Images behind re-estimated statistics, augmented anew where a site has fewer; see DECISIONS.md."""


class SiteJudge:
    """Measures weights on a site's images; trains nothing.

    Args:
        site: The hospital.
        study: Its classes, seed and batch-norm mode.
        data: The site's rows.
        images: Their pixels.
        device: Where to compute.
    """

    def __init__(
        self, site: SiteConfig, study: StudyConfig, data: SiteData, images: SiteImages, device: torch.device
    ) -> None:
        self._site, self._study, self._data = site, study, data
        self._images, self._device = images, device

    def counts(self, network: nn.Module) -> dict[str, MetricValue]:
        """Count a network's answers on the validation and the test images, once its statistics are measured."""
        self.measure_statistics(network)
        return {
            VALIDATION_CONFUSION: self._confusion(network, self._data.validation),
            TEST_CONFUSION: self._confusion(network, self._data.test),
        }

    def measure_statistics(self, network: nn.Module) -> None:
        """Give incoming weights batch-norm statistics of training images, the same ones every round.

        Nothing is measured where statistics are averaged, or the study judges with those training left.
        """
        federation = self._study.federation
        if federation.bn == "average" or federation.bn_statistics != "reestimated":
            return
        batches = training_batches(
            self._data.train,
            self._images,
            batch_size=_FORWARD_BATCH,
            num_steps=math.ceil(_STATISTICS_IMAGES / _FORWARD_BATCH),
            seed=derive_seed(self._study.seed, self._site.site, "statistics"),
            workers=self._site.loader_workers,
        )
        reestimate_statistics(network, batches, self._device)

    def _confusion(self, network: nn.Module, rows: tuple[ManifestRow, ...]) -> list[int]:
        batches = evaluation_batches(rows, self._images)
        return evaluate(network, batches, len(self._study.data.classes), self._device).confusion.to_list()
