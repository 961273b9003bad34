"""A private study, a pool of noise images on disk, and the trainer, small enough for a step in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from semc.config import StudyConfig, parse_study
from semc.datasets import ManifestRow, PatientPool, SiteImages
from semc.models import SEMCNet, build_model
from semc.objectives import SemcDpObjective
from semc.privacy.secret_noise import SecretRng
from semc.training.private_trainer import PrivateTrainer
from tests.semc.datasets.tiny_site import CLASSES, patients, write_site
from tests.semc.privacy.fixed_stream import FixedStream

_STUDY = """
name: tiny-private
data: {classes: [head, abdomen, femur], image_size: 32}
model: {backbone: tiny, experts: 2, samc_expansion: 1, embedding_dim: 8}
training: {local_steps: 3, learning_rate: 1.0, momentum: 0.0, weight_decay: 0.0, schedule: constant}
federation: {sites: [north], rounds: 4}
privacy: {mode: patient_dp, noise_multiplier: 1.0, patient_fraction: 0.5, min_patients: 2}
pretraining: {steps: 1}
"""
CPU = torch.device("cpu")


def private_study(**changes: Any) -> StudyConfig:
    """Return the study with changes, dots written as double underscores."""
    return parse_study(_STUDY, {key.replace("__", "."): value for key, value in changes.items()})


def without_noise(study: StudyConfig, **privacy: Any) -> StudyConfig:
    """Return what no study file can ask for: the same study with sigma 0 and other privacy settings."""
    return study.model_copy(
        update={"privacy": study.privacy.model_copy(update={"noise_multiplier": 0.0, **privacy})}
    )


def private_pool(
    root: Path, study: StudyConfig, num_patients: int = 6, frames: int = 3, without: int | None = None
) -> PatientPool:
    """Return a pool of patients with a few frames each, one of them left out if asked."""
    listed = patients(num_patients, frames)
    site = write_site(root, listed)
    rows = [
        ManifestRow(number, root / file, CLASSES.index(label), group, "train", "", "", "", 0)
        for number, (file, label, group) in enumerate(listed, start=2)
        if group != f"p{without}"
    ]
    return PatientPool(rows, SiteImages(study.data, site), study.privacy.frames_per_patient)


def private_network(study: StudyConfig) -> SEMCNet:
    """Return the study's network."""
    network = build_model(study)
    assert isinstance(network, SEMCNet)
    return network


def private_trainer(
    study: StudyConfig, network: SEMCNet, *, public_patients: int = 10, seed: int | None = 0
) -> PrivateTrainer:
    """Return the trainer; seed None = secret noise."""
    return PrivateTrainer(
        study,
        network,
        SemcDpObjective(study),
        CPU,
        public_patients=public_patients,
        secret=None if seed is None else SecretRng(FixedStream(seed)),
    )


def trained(network: torch.nn.Module) -> torch.Tensor:
    """Return the trained weights as one vector, float64."""
    return torch.cat([p.detach().double().flatten() for p in network.parameters() if p.requires_grad])
