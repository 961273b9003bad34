"""Arms: names to study settings, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from semc.config import load_study
from semc.exit_codes import ExitCode, SemcError
from semc.models import build_model
from simulation.arm_run import pooled_study
from simulation.arms import arm_words, parse_arm, parse_arms
from simulation.cli import app

BASE = load_study("phantom_smoke")


def test_yardsticks_and_federations_are_told_apart() -> None:
    kinds = {name: parse_arm(name).kind for name in ("local", "pooled", "fedavg", "silo", "local+resnet")}
    assert kinds == {
        "local": "local",
        "pooled": "pooled",
        "fedavg": "federated",
        "silo": "federated",
        "local+resnet": "local",
    }


def test_words_are_laid_over_the_study_from_left_to_right() -> None:
    study = parse_arm("fedprox+silo+logit-adjustment").study(BASE, seed=7)
    assert study.federation.algorithm == "fedprox"
    assert study.federation.proximal_mu > 0
    assert study.federation.bn == "silo"
    assert study.objective.cross_entropy == "logit_adjusted"
    assert study.seed == 7
    assert parse_arm("silo+average").study(BASE, 0).federation.bn == "average"


def test_an_arm_without_words_for_it_keeps_the_studys_setting() -> None:
    base = BASE.model_copy(update={"objective": BASE.objective.model_copy(update={"cross_entropy": "plain"})})
    assert parse_arm("silo").study(base, 0).objective.cross_entropy == "plain"
    assert parse_arm("silo+weighted-ce").study(base, 0).objective.cross_entropy == "inverse_frequency"


def test_fedavg_has_no_proximal_term_whatever_the_study_says() -> None:
    proximal = parse_arm("fedprox").study(BASE, 0)
    for name in ("fedavg", "local", "pooled", "local+resnet", "control-bn-by-type"):
        assert parse_arm(name).study(proximal, 0).federation.proximal_mu == 0
    assert parse_arm("silo").study(proximal, 0).federation.proximal_mu > 0  # the study's own rule


@pytest.mark.parametrize("word", sorted(set(arm_words()) - {"local", "pooled"}))
def test_every_word_makes_a_valid_study_with_a_network(word: str) -> None:
    study = parse_arm(word).study(BASE, 0)
    assert sum(parameter.numel() for parameter in build_model(study).parameters()) > 0


@pytest.mark.parametrize("name", ["", "nonsense", "silo+nonsense", "silo+local", "silo+silo", "local+pooled"])
def test_unknown_or_repeated_words_are_refused(name: str) -> None:
    with pytest.raises(SemcError) as caught:
        parse_arm(name)
    assert caught.value.code is ExitCode.USAGE


def test_settings_that_do_not_go_together_name_the_arm() -> None:
    reference = load_study(
        "phantom_smoke", {"objective.queue_on_update": "keep", "objective.key_encoder": "ema"}
    )
    with pytest.raises(SemcError, match=r"Arm 'silo\+no-queue'") as caught:
        parse_arm("silo+no-queue").study(reference, 0)
    assert caught.value.code is ExitCode.CONFIG_INVALID


def test_arms_are_listed_once_and_in_order() -> None:
    assert [arm.name for arm in parse_arms(["silo", "local", " silo "])] == ["silo", "local"]
    with pytest.raises(SemcError):
        parse_arms([])


def test_pooled_sees_as_many_images_as_all_sites_together() -> None:
    steps = BASE.training.local_steps
    assert steps is not None
    assert pooled_study(BASE).training.local_steps == steps * len(BASE.federation.sites)
    epochs = load_study("phantom_smoke", {"training.local_steps": None, "training.local_epochs": 2})
    assert pooled_study(epochs).training.local_epochs == 2


def test_an_arm_is_measured_by_yardsticks_with_its_own_loss_and_network() -> None:
    arm = parse_arm("fedprox+silo+logit-adjustment+no-ace+weight-uniform")
    assert arm.yardstick("local").name == "local+logit-adjustment+no-ace"
    assert arm.yardstick("pooled").name == "pooled+logit-adjustment+no-ace"
    assert parse_arm("silo").yardstick("local").name == "local"


@pytest.mark.parametrize("options", [["--seeds", "0,a"], ["--seeds", "0,-1"]])
def test_seeds_that_are_no_numbers_are_a_usage_error(options: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["compare", "phantom_smoke", "--out", str(tmp_path / "out"), *options])
    assert done.exit_code == ExitCode.USAGE
    assert "whole numbers" in done.output
    assert not (tmp_path / "out" / "arms").exists()


def test_the_words_are_listed() -> None:
    done = CliRunner().invoke(app, ["arms", "--format", "json"])
    assert json.loads(done.output) == arm_words()
    assert "silo " in CliRunner().invoke(app, ["arms"]).output


def test_a_study_that_turns_its_contrastive_loss_off_is_told_so() -> None:
    assert BASE.cautions == ()
    (caution,) = load_study("phantom_smoke", {"objective.alpha": "learned"}).cautions
    assert "drifts to 1" in caution
    assert (
        load_study("phantom_smoke", {"objective.alpha": "learned", "objective.alpha_shift": True}).cautions
        == ()
    )
