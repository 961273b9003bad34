"""Three phantom hospitals and a study small enough to run whole in a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from semc.config import StudyConfig, parse_study
from simulation.make_sites import SitesRequest, make_sites

STUDY = """
name: tiny
seed: 3
data: {classes: [head, abdomen, femur], image_size: 32}
model: {backbone: tiny, samc_expansion: 1, embedding_dim: 16}
objective: {queue_size: 64}
training: {batch_size: 4, local_steps: 2, learning_rate: 0.02}
federation: {sites: [north, south, west], rounds: 3, deadline_seconds: 120, join_timeout_seconds: 300}
"""


@pytest.fixture(scope="session")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of three hospitals named as the study's sites."""
    folder = tmp_path_factory.mktemp("hospitals")
    study = parse_study(STUDY)
    make_sites(
        SitesRequest(
            partition="by_centre",
            num_sites=3,
            site_names=study.federation.sites,
            classes=study.data.classes,
            patients_per_site=9,
            test_patients_per_site=4,
            frames_per_patient=3,
            image_size=32,
            seed=1,
        ),
        folder,
    )
    return folder


@pytest.fixture
def study() -> StudyConfig:
    """Three sites, three rounds, a network of a million parameters."""
    return parse_study(STUDY)
