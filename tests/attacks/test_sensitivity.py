"""No patient moves the clipped sum by more than C; whatever couples patients does, through the same harness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from semc.config import StudyConfig, parse_study
from semc.losses import ContrastivePool, supcon_loss
from semc.models import SEMCNet, SEMCOutput
from semc.objectives import SemcDpObjective, SemcObjective
from tests.attacks.audit_row import AuditRow, Control
from tests.attacks.private_site import network_of
from tests.attacks.sensitivity import (
    Losses,
    Record,
    history_shift,
    optimised_record,
    removal_shift,
    removal_shifts,
    replacement_shift,
)

_STUDY = """
name: sensitivity
seed: 5
data: {classes: [head, abdomen, femur], image_size: 32}
model: {backbone: tiny, experts: 2, samc_expansion: 1, embedding_dim: 8}
training: {local_steps: 1}
federation: {sites: [north, south], rounds: 1}
pretraining: {steps: 1}
"""
_PRIVATE = {"privacy.mode": "patient_dp", "privacy.noise_multiplier": 1.0}
CLASSES = 3
SETTINGS = [
    (trainable, norm)
    for trainable in ("heads", "heads+projection", "adapters", "all")
    for norm in ("batch", "group")
]
REMOVED, REPLACED, COUPLED = 1.0001, 2.0002, 1.05
CLIP = 0.05
"""C of random pairs, below every gradient here: a bound nobody reaches would hold whatever is wrong."""


def study_of(trainable: str, norm: str = "batch", **changes: Any) -> StudyConfig:
    return parse_study(_STUDY, {**_PRIVATE, "privacy.trainable": trainable, "model.norm": norm, **changes})


def private_losses(study: StudyConfig, network: SEMCNet) -> Losses:
    """The mechanism: each patient's loss is a function of that patient."""
    objective = SemcDpObjective(study)

    def losses(drawn: Sequence[Record]) -> list[Callable[[], Tensor]]:
        return [
            lambda record=record: objective.loss(network(record.images_BCHW), record.labels_B)
            for record in drawn
        ]

    return losses


def record(frames: int, generator: torch.Generator, side: int = 32) -> Record:
    images = torch.randn(frames, 3, side, side, generator=generator)
    return Record(images, torch.randint(CLASSES, (frames,), generator=generator))


def draw(sizes: Sequence[int], generator: torch.Generator, side: int = 32) -> list[Record]:
    return [record(frames, generator, side) for frames in sizes]


def random_pairs(study: StudyConfig, draws: int, patients: int, side: int = 32) -> list[float]:
    """Return the shifts of removing every patient of some draws; 1 to 30 frames each."""
    network = network_of(study).eval()
    generator = torch.Generator().manual_seed(study.seed)
    shifts = []
    for _ in range(draws):
        sizes = (30 ** torch.rand(patients, generator=generator)).round().int().tolist()
        drawn = draw(sizes, generator, side)
        shifts += removal_shifts(network, private_losses(study, network), drawn, CLIP)
    return shifts


@pytest.mark.parametrize(("trainable", "norm"), SETTINGS)
def test_removal_of_a_random_patient(trainable: str, norm: str, audit: Callable[[AuditRow], None]) -> None:
    """25 pairs a setting, 200 in all."""
    shifts = random_pairs(study_of(trainable, norm), draws=5, patients=5)
    assert len(shifts) == 25
    assert min(shifts) > 0.999  # every gradient was clipped: the bound is put to the test
    audit(AuditRow("sensitivity, removal", f"{trainable}, {norm} norm, 25 pairs", max(shifts), REMOVED, ()))


@pytest.mark.audit
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("trainable", "norm"), SETTINGS)
def test_removal_of_a_random_patient_larger(
    trainable: str, norm: str, audit: Callable[[AuditRow], None]
) -> None:
    """200 pairs a setting, on a wider network with three experts and larger images."""
    changes = {"model.backbone": "small", "model.experts": 3, "data.image_size": 64}
    shifts = random_pairs(study_of(trainable, norm, **changes), draws=50, patients=4, side=64)
    assert len(shifts) == 200
    assert min(shifts) > 0.999
    audit(AuditRow("sensitivity, removal", f"{trainable}, {norm} norm, 200 pairs", max(shifts), REMOVED, ()))


def optimised_pairs(study: StudyConfig, pairs: int, steps: int) -> tuple[list[float], list[float]]:
    """Return shifts before and after pixels are driven towards a longer gradient, with a C that random ones miss."""
    network = network_of(study).eval()
    losses = private_losses(study, network)
    generator = torch.Generator().manual_seed(study.seed + 1)
    clip = 1.2 * max(removal_shift(network, losses, [record(1, generator)], 0, 1e6) for _ in range(5)) * 1e6
    before, after = [], []
    for pair in range(pairs):
        drawn = draw([1 + pair % 30, 3, 6], generator)
        worst = optimised_record(network, losses, drawn[0], steps=steps)
        before.append(removal_shift(network, losses, drawn, 0, clip))
        after.append(removal_shift(network, losses, [worst, *drawn[1:]], 0, clip))
    return before, after


@pytest.mark.parametrize("trainable", ["heads", "heads+projection", "adapters", "all"])
def test_removal_of_an_optimised_patient(trainable: str, audit: Callable[[AuditRow], None]) -> None:
    """5 pairs a setting, 20 in all: gradient ascent on the patient's pixels."""
    before, after = optimised_pairs(study_of(trainable), pairs=5, steps=8)
    assert sum(after) > 1.2 * sum(before)  # the ascent works
    audit(AuditRow("sensitivity, removal", f"{trainable}, 5 optimised pairs", max(after), REMOVED, ()))


@pytest.mark.parametrize("trainable", ["heads", "all"])
def test_replacement_of_a_patient(trainable: str, audit: Callable[[AuditRow], None]) -> None:
    study = study_of(trainable)
    network = network_of(study).eval()
    generator = torch.Generator().manual_seed(0)
    shifts = []
    for frames in (1, 2, 8, 30):
        drawn, other = draw([3, frames, 6], generator), record(31 - frames, generator)
        shifts.append(replacement_shift(network, private_losses(study, network), drawn, 1, other, CLIP))
    assert max(shifts) > 1.0
    audit(AuditRow("sensitivity, replacement", trainable, max(shifts), REPLACED, ()))


# What a study may not be, through the same harness


def in_batch_contrast(network: SEMCNet, drawn: Sequence[Record]) -> list[Callable[[], Tensor]]:
    """SupCon over the whole draw (eq. 13), shared out by patient as per-sample gradients would be."""
    images = torch.cat([patient.images_BCHW for patient in drawn])
    labels = torch.cat([patient.labels_B for patient in drawn])
    owner = torch.cat([torch.full_like(patient.labels_B, i) for i, patient in enumerate(drawn)])

    def loss(i: int) -> Tensor:
        output: SEMCOutput = network(images)
        assert output.embeddings_NBD is not None
        pool = ContrastivePool.of_batch(output.embeddings_NBD, labels, torch.arange(len(labels)))
        anchors = len(pool.labels_P)
        found = supcon_loss(pool.cosines(anchors), pool, temperature=0.2).per_image(len(labels))
        return found.loss_R[owner == i].mean()

    return [partial(loss, i) for i in range(len(drawn))]


def batch_statistics(network: SEMCNet, drawn: Sequence[Record]) -> list[Callable[[], Tensor]]:
    """Cross-entropy with batch norm as in training: every image is normalised by all."""
    images = torch.cat([patient.images_BCHW for patient in drawn])
    labels = torch.cat([patient.labels_B for patient in drawn])
    owner = torch.cat([torch.full_like(patient.labels_B, i) for i, patient in enumerate(drawn)])

    def loss(i: int) -> Tensor:
        output: SEMCOutput = network.train()(images)
        loss_B = functional.cross_entropy(output.logits_BK, labels, reduction="none")
        return loss_B[owner == i].mean()

    return [partial(loss, i) for i in range(len(drawn))]


def worst_of(network: SEMCNet, losses: Losses, sizes: Sequence[int]) -> float:
    generator = torch.Generator().manual_seed(2)
    return max(removal_shift(network, losses, draw(sizes, generator), 0, CLIP) for _ in range(3))


@pytest.mark.parametrize("coupled", [in_batch_contrast, batch_statistics], ids=lambda f: f.__name__)
def test_coupling_within_the_step_is_found(
    coupled: Callable[..., Any], audit: Callable[[AuditRow], None]
) -> None:
    study = study_of("heads+projection" if coupled is in_batch_contrast else "all")
    network = network_of(study).eval()
    broken = worst_of(network, partial(coupled, network), [1] * 16)
    assert broken > COUPLED
    network.eval()
    held = worst_of(network, private_losses(study, network), [1] * 16)
    control = Control(coupled.__name__.replace("_", " "), broken, COUPLED)
    audit(AuditRow("sensitivity, removal", f"16 patients beside {control.name}", held, REMOVED, (control,)))


def test_coupling_through_a_queue_is_found(audit: Callable[[AuditRow], None]) -> None:
    """A patient of an earlier step, not in this one, moves the sum by more than C: the accountant assumes 0."""
    study = study_of("heads+projection")
    network = network_of(study).eval()
    changes = {"objective.alpha": "fixed", "objective.cross_entropy": "plain", "objective.queue_size": 64}
    paper = parse_study(_STUDY, changes)
    generator = torch.Generator().manual_seed(4)
    history, drawn = draw([10, 1, 1, 1], generator), draw([1] * 16, generator)
    shift = partial(history_shift, network, history=history, removed=0, drawn=drawn, clip=CLIP)
    control = Control(
        "paper's queue, 10 frames", shift(lambda: SemcObjective(paper, [9] * CLASSES, 64)), COUPLED
    )
    held = shift(lambda: SemcDpObjective(study))
    audit(AuditRow("sensitivity, patient not drawn", "earlier step", held, 0.0, (control,)))
