"""Features of a frozen trunk from memory: the same training, at the cost of the heads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from semc.datasets import Batch, ManifestRow
from semc.training.feature_memory import FeatureMemory
from tests.semc.training.private_tiny import (
    private_network,
    private_pool,
    private_study,
    private_trainer,
    trained,
)


def test_training_from_memory_is_training_through_the_trunk(tmp_path: Path) -> None:
    """Twelve steps over four rounds with frames chosen at random; rounding is all that may differ."""
    study = private_study(training__momentum=0.9, privacy__frames_per_patient=2)
    ends = []
    for remembers in (True, False):
        network = private_network(study)
        trainer = private_trainer(study, network)
        if not remembers:
            trainer._features = None
        for start in range(0, 12, 3):
            trainer.train(private_pool(tmp_path, study), global_step=start, total_steps=12)
        ends.append(trained(network))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("trainable", "augmentation", "remembers"),
    [("heads", "none", True), ("heads", "paper", False), ("heads+projection", "none", False)],
)
def test_only_where_the_trunk_and_its_input_stand_still(
    trainable: str, augmentation: str, remembers: bool
) -> None:
    study = private_study(privacy__trainable=trainable, data__augmentation=augmentation)
    trainer = private_trainer(study, private_network(study))
    assert (trainer._features is not None) == remembers


def test_an_image_goes_through_the_trunk_once_until_the_trunk_changes(tmp_path: Path) -> None:
    study = private_study()
    pool, network = private_pool(tmp_path, study), private_network(study).eval()
    rng, loaded = np.random.default_rng(0), []

    def load(rows: Sequence[ManifestRow]) -> Batch:
        loaded.append(len(rows))
        return pool.load(rows, rng)

    memory = FeatureMemory(network)
    rows = pool.frames(0, rng)
    memory.check_current()
    first = memory.of(rows, load)
    assert loaded == [3]
    memory.of(rows[::-1], load)
    with torch.no_grad():
        for parameter in network.classifiers.parameters():
            parameter.add_(1.0)
    memory.check_current()  # a trained weight is no part of the trunk
    assert torch.equal(memory.of(rows, load).pooled_NBC, first.pooled_NBC)
    assert loaded == [3]
    with torch.no_grad():
        network.backbone.bn1.running_mean.add_(0.5)
    assert torch.equal(
        memory.of(rows, load).pooled_NBC, first.pooled_NBC
    )  # the control: without the check, stale
    memory.check_current()
    assert not torch.equal(memory.of(rows, load).pooled_NBC, first.pooled_NBC)
    assert loaded == [3, 3]


def test_features_come_in_the_order_asked_for(tmp_path: Path) -> None:
    study = private_study()
    pool, network = private_pool(tmp_path, study), private_network(study).eval()
    rng, memory = np.random.default_rng(0), FeatureMemory(network)
    rows = pool.frames(0, rng)
    memory.of(rows[1:2], lambda missing: pool.load(missing, rng))
    mixed = memory.of(rows, lambda missing: pool.load(missing, rng))
    with torch.no_grad():
        direct = network.pooled(pool.load(rows, rng).images_BCHW)
    torch.testing.assert_close(mixed.pooled_NBC, direct.pooled_NBC, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(mixed.gate_input_BC, direct.gate_input_BC, rtol=1e-5, atol=1e-6)
    assert not mixed.pooled_NBC.requires_grad
