"""The patient's loss of semc_dp, term by term."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from semc.config import StudyConfig, parse_study
from semc.exit_codes import ExitCode, SemcError
from semc.models import SEMCOutput
from semc.objectives import SemcDpObjective, build_objective
from tests.semc.losses.test_prototype_contrast import slow

STUDY = """
name: private
data: {classes: [a, b, c], image_size: 32}
model: {backbone: tiny}
training: {local_steps: 1}
federation: {sites: [north]}
privacy: {mode: patient_dp, noise_multiplier: 1.0, trainable: heads+projection}
pretraining: {}
"""
LABELS = torch.tensor([0, 2, 0, 1])


def study_of(**changes: Any) -> StudyConfig:
    return parse_study(STUDY, {key.replace("__", "."): value for key, value in changes.items()})


def output() -> SEMCOutput:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return SEMCOutput(
        draw(4, 3),
        draw(3, 4, 3),
        draw(4, 3).softmax(1),
        functional.normalize(draw(3, 4, 8), dim=2),
        None,
        draw(3, 8),
    )


def test_is_the_sum_of_its_terms() -> None:
    found, made = (
        SemcDpObjective(study_of(objective__contrast_weight=0.7, objective__expert_ce_weight=0.4)),
        output(),
    )
    fused = functional.cross_entropy(made.logits_BK, LABELS)
    experts = sum(functional.cross_entropy(z, LABELS) for z in made.expert_logits_NBK) / 3
    assert made.embeddings_NBD is not None
    assert made.prototypes_KD is not None
    contrast = slow(made.embeddings_NBD, LABELS.tolist(), made.prototypes_KD, 0.2)
    expected = fused + 0.4 * experts + 0.7 * sum(contrast) / len(contrast)
    assert found.loss(made, LABELS).item() == pytest.approx(float(expected), rel=1e-9)


def test_without_contrast_it_is_cross_entropy() -> None:
    made = output()
    bare = SemcDpObjective(
        study_of(privacy__trainable="heads", objective__mc=False, objective__expert_ce_weight=0.0)
    )
    expected = functional.cross_entropy(made.logits_BK, LABELS)
    assert bare.loss(made, LABELS).item() == pytest.approx(expected.item())


def test_the_study_builds_it_whatever_the_counts() -> None:
    """Class counts are private: the loss is the same for all."""
    made = output()
    losses = []
    for counts in ([1, 1, 1], [90, 5, 0]):
        objective = build_objective(study_of(), counts, sum(counts))
        assert isinstance(objective, SemcDpObjective)
        losses.append(objective.loss(made, LABELS))
    assert torch.equal(*losses)


def test_it_keeps_nothing() -> None:
    objective = SemcDpObjective(study_of())
    assert objective.state_dict() == {}
    objective.load_state_dict({})
    with pytest.raises(SemcError) as caught:
        objective.load_state_dict({"queue.embeddings_QD": torch.zeros(1)})
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID
