"""A hospital in memory for attacks on the real private trainer: made images, real pool, real network, real noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from semc.config import StudyConfig, parse_study
from semc.datasets import ManifestRow
from semc.datasets.patient_pool import PatientPool
from semc.datasets.phantom import PhantomConfig, PhantomFrame, plan_centre, render_frame
from semc.datasets.transforms import normalisation_of
from semc.models import SEMCNet, build_model
from semc.objectives.semc_dp import SemcDpObjective
from semc.privacy.secret_noise import SecretRng
from semc.training.private_trainer import PrivateTrainer

CLASSES = ("head", "abdomen", "femur", "four_chamber", "liver", "other")
CPU = torch.device("cpu")

_STUDY = """
name: audited
seed: 3
data: {classes: [head, abdomen, femur, four_chamber, liver, other], image_size: 32}
model: {backbone: tiny, experts: 2, samc_expansion: 1, embedding_dim: 8}
training: {local_steps: 1, learning_rate: 0.001, momentum: 0.0, weight_decay: 0.0, schedule: constant}
federation: {sites: [north, south], rounds: 1}
privacy: {mode: patient_dp, noise_multiplier: 1.0, patient_fraction: 1.0, min_patients: 2}
"""


@dataclass(frozen=True)
class Patient:
    """One made patient: uint8 images [S, S] and their labels."""

    number: int
    """Tells the patient's rows from all others': the trainer remembers features by row."""
    images: tuple[NDArray[np.uint8], ...]
    labels: tuple[int, ...]


class MemoryImages:
    """What a pool asks of :class:`semc.datasets.SiteImages`, without files."""

    def __init__(self, study: StudyConfig, images: dict[int, NDArray[np.uint8]]) -> None:
        self.data = study.data
        self.normalisation = normalisation_of(study.data, study.model.weights)
        self._images = images

    def image(self, row: ManifestRow) -> NDArray[np.uint8]:
        """Return a row's pixels."""
        return self._images[row.index]


def audited_study(changes: dict[str, Any] | None = None) -> StudyConfig:
    """Return the smallest study of mode patient_dp, a tiny trunk whose heads train, with changes by dotted key."""
    return parse_study(_STUDY, changes)


def without_protection(study: StudyConfig) -> StudyConfig:
    """Return the same study with neither clipping nor noise, which no study file can ask for."""
    off = study.privacy.model_copy(update={"noise_multiplier": 0.0, "max_grad_norm": 1e9})
    return study.model_copy(update={"privacy": off})


def pool_of(study: StudyConfig, patients: Sequence[Patient], *, image_level: bool = False) -> PatientPool:
    """Return the real pool over made patients.

    Args:
        study: Sizes and frames per patient.
        patients: Each with a number of its own.
        image_level: The broken twin: every frame is a record of its own, clipped by itself.
    """
    rows, images = [], {}
    for patient in patients:
        for frame, (image, label) in enumerate(zip(patient.images, patient.labels, strict=True)):
            index = patient.number * 1000 + frame
            group = f"{patient.number:05d}-{frame}" if image_level else f"{patient.number:05d}"
            rows.append(_row(index, label, group, frame))
            images[index] = image
    return PatientPool(rows, MemoryImages(study, images), study.privacy.frames_per_patient)


def phantom_patients(num_patients: int, frames: int, seed: int) -> list[Patient]:
    """Return phantom patients with so many frames each, of two planes in turn."""
    config = PhantomConfig(
        seed=seed,
        classes=CLASSES,
        centre_names=("north",),
        patients_per_centre=num_patients,
        test_patients_per_centre=0,
        frames_per_patient=frames,
        image_size=32,
    )
    found: dict[str, list[PhantomFrame]] = {}
    for frame in plan_centre(config, "north"):
        found.setdefault(frame.patient, []).append(frame)
    return [
        Patient(
            number,
            tuple(render_frame(config, frame) for frame in mine),
            tuple(CLASSES.index(frame.plane) for frame in mine),
        )
        for number, mine in enumerate(found.values())
    ]


def network_of(study: StudyConfig) -> SEMCNet:
    """Return the study's network."""
    network = build_model(study)
    assert isinstance(network, SEMCNet)
    return network


def trainer_of(
    study: StudyConfig, network: SEMCNet, *, public_patients: int, secret: SecretRng | None = None
) -> PrivateTrainer:
    """Return the real private trainer."""
    return PrivateTrainer(
        study, network, SemcDpObjective(study), CPU, public_patients=public_patients, secret=secret
    )


def trained_weights(network: torch.nn.Module) -> torch.Tensor:
    """Return what a round sends back, as one vector."""
    return torch.cat([p.detach().flatten().clone() for p in network.parameters() if p.requires_grad])


@torch.no_grad()
def set_trained_weights(network: torch.nn.Module, vector: torch.Tensor) -> None:
    """Put back what :func:`trained_weights` returned."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    for parameter, values in zip(parameters, vector.split([p.numel() for p in parameters]), strict=True):
        parameter.copy_(values.view_as(parameter))


def _row(index: int, label: int, group: str, frame: int) -> ManifestRow:
    return ManifestRow(index, Path(str(index)), label, group, "train", "north", "", "", frame)
