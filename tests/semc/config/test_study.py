"""Studies: presets, digests, refusals."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from semc.config import PRESETS, StudyConfig, load_study, packaged_studies, parse_study
from semc.exit_codes import ExitCode, SemcError

MINIMAL = """
name: tiny
data: {classes: [a, b]}
training: {local_steps: 2}
federation: {sites: [north, south]}
"""


def refusal(text: str, overrides: dict[str, Any] | None = None) -> SemcError:
    with pytest.raises(SemcError) as caught:
        parse_study(text, overrides)
    return caught.value


def test_yaml_round_trip_keeps_the_digest() -> None:
    for preset in PRESETS:
        study = parse_study(MINIMAL + f"preset: {preset}\n")
        assert parse_study(study.to_yaml()) == study
        assert parse_study(study.to_yaml()).digest() == study.digest()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", 1),
        ("data.image_size", 64),
        ("model.samc", False),
        ("objective.queue", False),
        ("training.learning_rate", 0.5),
        ("federation.bn", "fedbn"),
    ],
)
def test_every_setting_changes_the_digest(key: str, value: object) -> None:
    assert parse_study(MINIMAL, {key: value}).digest() != parse_study(MINIMAL).digest()


def test_own_keys_beat_the_preset_and_the_preset_beats_the_default() -> None:
    reference = parse_study(MINIMAL + "preset: reference\n")
    assert reference.objective.mc_loss == "gpaco"
    assert reference.model.ace_activation == "leaky_relu"
    assert not reference.model.gate_trained
    own = parse_study(MINIMAL + "preset: reference\n", {"model.ace_activation": "relu"})
    assert own.model.ace_activation == "relu"
    assert own.objective.mc_loss == "gpaco"


def test_robust_copies_the_last_stage_only_where_there_are_weights() -> None:
    assert parse_study(MINIMAL).model.expert_init == "random"
    assert parse_study(MINIMAL, {"model.weights": "torchvision"}).model.expert_init == "pretrained"


def test_model_digest_ignores_training_but_not_shapes() -> None:
    study = parse_study(MINIMAL)
    assert parse_study(MINIMAL, {"training.learning_rate": 0.5}).model_digest() == study.model_digest()
    assert parse_study(MINIMAL, {"model.experts": 2}).model_digest() != study.model_digest()
    assert parse_study(MINIMAL, {"data.classes": ["a", "b", "c"]}).model_digest() != study.model_digest()


def test_an_unknown_key_names_itself_and_the_known_ones() -> None:
    error = refusal(MINIMAL, {"training.learning_rat": 0.1})
    assert error.code is ExitCode.CONFIG_INVALID
    assert "training.learning_rat" in error.problem
    assert "learning_rate" in error.fix
    assert "\n" not in error.line()


@pytest.mark.parametrize(
    ("overrides", "word"),
    [
        ({"data.classes": ["a", "a"]}, "unique"),
        ({"federation.sites": ["n", "n"]}, "unique"),
        ({"federation.quorum": 3}, "quorum"),
        ({"federation.algorithm": "fedprox"}, "proximal_mu"),
        ({"federation.proximal_mu": 0.1}, "fedprox"),
        ({"training.local_epochs": 1}, "exactly one"),
        ({"model.weights": "w.safetensors"}, "weights_sha256"),
        ({"model.weights": "../w.safetensors", "model.weights_sha256": "0" * 64}, "no path"),
        ({"model.weights": "/srv/w.safetensors", "model.weights_sha256": "0" * 64}, "no path"),
        ({"federation.sites": ["north", "../../x"]}, "federation.sites.1"),
        ({"federation.sites": ["North"]}, "federation.sites.0"),
        ({"preset": ["robust"]}, "preset"),
        ({"preset": {"robust": 1}}, "preset"),
        ({"preset": None}, "preset"),
        ({"model.expert_init": "pretrained"}, "needs weights"),
        ({"objective.mc_loss": "gpaco"}, "gpaco"),
        ({"objective.queue_size": 8}, "queue_size"),
        ({"objective.alpha_clamp": [0.9, 0.1]}, "alpha_clamp"),
        ({"objective.key_encoder": "ema", "objective.queue": False}, "ema"),
        ({"training.learning_rate": float("nan")}, "learning_rate"),
        ({"privacy.mode": "patient_dp"}, "noise_multiplier"),
        ({"privacy.epsilon": 4}, "only mode patient_dp"),
        ({"name": "Not A Name"}, "name"),
    ],
)
def test_impossible_studies_are_refused_with_the_reason(overrides: dict[str, Any], word: str) -> None:
    error = refusal(MINIMAL, overrides)
    assert error.code is ExitCode.CONFIG_INVALID
    assert word in error.problem


def test_broken_yaml_is_named_by_line() -> None:
    assert "line 2" in refusal("name: x\n  seed: [1\n").problem
    assert refusal("- a list").code is ExitCode.CONFIG_INVALID


def test_a_study_is_immutable() -> None:
    with pytest.raises(ValidationError):
        parse_study(MINIMAL).seed = 1  # type: ignore[misc]


def test_packaged_studies_load_by_name() -> None:
    assert packaged_studies()
    for name in packaged_studies():
        study = load_study(name)
        assert isinstance(study, StudyConfig)
        assert study.name == name


def test_a_missing_study_lists_the_packaged_ones() -> None:
    with pytest.raises(SemcError) as caught:
        load_study("no_such_study")
    assert caught.value.code is ExitCode.CONFIG_NOT_FOUND
    assert "phantom_smoke" in caught.value.fix
