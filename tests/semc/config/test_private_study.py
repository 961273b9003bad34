"""Impossible pairs of a private study: each is refused with its reason, and its valid twin loads."""

from __future__ import annotations

from typing import Any

import pytest

from semc.config import StudyConfig, parse_study
from semc.exit_codes import ExitCode, SemcError

PRIVATE = """
name: tiny
data: {classes: [a, b]}
model: {backbone: tiny}
training: {local_steps: 2}
federation: {sites: [north, south], rounds: 3}
privacy: {mode: patient_dp, noise_multiplier: 2.0}
pretraining: {}
"""


def refused(overrides: dict[str, Any], text: str = PRIVATE) -> str:
    with pytest.raises(SemcError) as caught:
        parse_study(text, overrides)
    assert caught.value.code is ExitCode.CONFIG_INVALID
    return caught.value.problem


def test_the_mode_brings_what_it_needs_and_the_resolved_study_reads_back() -> None:
    study = parse_study(PRIVATE)
    assert study.objective.name == "semc_dp"
    assert study.federation.bn == "frozen"
    assert study.federation.weight == "uniform"
    assert not study.objective.queue
    assert not study.objective.mc
    assert parse_study(study.to_yaml()).digest() == study.digest()
    assert parse_study(PRIVATE, {"privacy.trainable": "heads+projection"}).objective.mc
    assert parse_study(PRIVATE, {"privacy.trainable": "adapters"}).model.adapter_width > 0


@pytest.mark.parametrize(
    ("overrides", "word", "mended"),
    [
        ({"objective.queue": True}, "queue", {"objective.queue": False}),
        ({"objective.name": "semc"}, "couples the patients", {"objective.name": "semc_dp"}),
        ({"objective.name": "classification"}, "couples", {"objective.name": "semc_dp"}),
        ({"federation.bn": "silo"}, "statistics", {"federation.bn": "frozen"}),
        ({"federation.bn": "average"}, "statistics", {"federation.bn": "frozen"}),
        ({"objective.cross_entropy": "logit_adjusted"}, "class counts", {"objective.cross_entropy": "plain"}),
        ({"objective.cross_entropy": "inverse_frequency"}, "class counts", {}),
        ({"objective.alpha": "uncertainty"}, "alpha", {"objective.alpha": "fixed"}),
        (
            {"objective.importance_weight": 0.1},
            "statistic of the batch",
            {"objective.importance_weight": 0.0},
        ),
        (
            {"objective.mc": True},
            "clip norm",
            {"objective.mc": True, "privacy.trainable": "heads+projection"},
        ),
        (
            {"objective.mc": False, "privacy.trainable": "heads+projection"},
            "no projection",
            {"objective.mc": True, "privacy.trainable": "heads+projection"},
        ),
        ({"model.adapter_width": 8}, "adapter", {"model.adapter_width": 8, "privacy.trainable": "adapters"}),
        (
            {"training.local_steps": None, "training.local_epochs": 1},
            "local_steps",
            {"training.local_steps": 3},
        ),
        ({"training.gradient_clip": 1.0}, "one by one", {"privacy.max_grad_norm": 1.0}),
        ({"training.amp": "auto"}, "float32", {"training.amp": "off"}),
        (
            {"federation.algorithm": "fedprox", "federation.proximal_mu": 0.1},
            "fedprox",
            {"federation.algorithm": "fedadam"},
        ),
        ({"federation.weight": "n"}, "counts", {"federation.weight": "uniform"}),
        ({"federation.evaluate_every": 1}, "again and again", {"federation.evaluate_every": 3}),
        ({"model.gate_trained": False}, "gate", {"model.gate_trained": True}),
        ({"privacy.noise_multiplier": None}, "noise_multiplier", {"privacy.noise_multiplier": 1.0}),
        ({"privacy.delta": 0.02}, "1 / min_patients", {"privacy.delta": 0.02, "privacy.min_patients": 20}),
        ({"privacy.patient_fraction": 0.0}, "patient_fraction", {"privacy.patient_fraction": 1.0}),
        (
            {"privacy.trainable": "all", "pretraining": None},
            "public statistics",
            {"privacy.trainable": "all", "pretraining": None, "model.norm": "group"},
        ),
        (
            {"model.norm": "group", "model.backbone": "resnet18", "model.weights": "torchvision"},
            "norm group",
            {"model.norm": "group"},
        ),
        ({"pretraining.source": "../images"}, "no path", {"pretraining.source": "public_images"}),
    ],
)
def test_each_impossible_pair_is_refused_and_its_twin_loads(
    overrides: dict[str, Any], word: str, mended: dict[str, Any]
) -> None:
    assert word in refused(overrides)
    assert isinstance(parse_study(PRIVATE, mended), StudyConfig)


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        ({"objective.name": "semc_dp"}, "semc_dp"),
        ({"federation.bn": "frozen"}, "frozen"),
        ({"model.adapter_width": 8}, "adapter_width"),
        ({"privacy.noise_multiplier": 2.0}, "only mode patient_dp"),
    ],
)
def test_parts_of_the_private_mode_do_not_appear_without_it(overrides: dict[str, Any], word: str) -> None:
    plain = PRIVATE.replace("privacy: {mode: patient_dp, noise_multiplier: 2.0}", "")
    assert parse_study(plain).privacy.mode == "none"
    assert word in refused(overrides, plain)


def test_a_frozen_trunk_of_random_weights_is_warned_about() -> None:
    assert not parse_study(PRIVATE).cautions
    assert "random" in parse_study(PRIVATE, {"pretraining": None}).cautions[0]
