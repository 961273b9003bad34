"""A network's answers on the sites' test images, image by image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from semc.config import StudyConfig, load_site
from semc.datasets import SiteImages, evaluation_batches
from semc.datasets.study_data import build_study_data
from semc.reporting.predictions import Predictions, Protocol, number_patients
from semc.training import evaluate


@dataclass(frozen=True)
class ModelName:
    """Which model answers.

    Attributes:
        arm: The arm that trained it.
        seed: Seed of the training.
        site: Whose model it is; "" for one model all sites share.
        condition: How a model met a left-out centre; "" elsewhere.
    """

    arm: str
    seed: int
    site: str = ""
    condition: str = ""


class Scorer:
    """Scores networks on the test images of several sites, decoded once.

    Args:
        study: Classes and image size.
        site_files: Site name to site file.

    Raises:
        SemcError: What a site's data are refused for.
    """

    def __init__(self, study: StudyConfig, site_files: Mapping[str, Path]) -> None:
        self._study = study
        self._sites = {}
        for name, file in site_files.items():
            site = load_site(file).data
            test = build_study_data(site, study).test
            self._sites[name] = (test, SiteImages(study.data, site, study.model.weights))

    def score(
        self,
        network: nn.Module,
        model: ModelName,
        test_sites: tuple[str, ...],
        *,
        protocol: Protocol | None = None,
    ) -> list[Predictions]:
        """Return the answers on each site's test images; a site without any is left out.

        Args:
            network: On the device to compute on.
            model: What the records are filed under.
            test_sites: Sites asked about.
            protocol: By default per_site for a shared model or a site's own images, else cross_site.
        """
        records = []
        for name in test_sites:
            rows, images = self._sites[name]
            if not rows:
                continue
            batches = evaluation_batches(rows, images)
            answers = evaluate(network, batches, len(self._study.data.classes), _device_of(network))
            records.append(
                Predictions(
                    arm=model.arm,
                    seed=model.seed,
                    model_site=model.site,
                    test_site=name,
                    patients=number_patients([row.group for row in rows]),
                    labels=tuple(row.label for row in rows),
                    probabilities_BK=answers.probabilities_BK,
                    protocol=protocol or ("per_site" if model.site in ("", name) else "cross_site"),
                    condition=model.condition,
                )
            )
        return records


def _device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
