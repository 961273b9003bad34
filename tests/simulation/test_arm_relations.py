"""How arms stand to each other: whose yardsticks they are."""

from __future__ import annotations

from semc.config import load_study
from semc.reporting.yardsticks import Yardsticks
from simulation.arm_relations import fair_yardsticks, one_training, remark_on_one_training
from simulation.arms import parse_arms

BASE = load_study("phantom_smoke", {"objective.cross_entropy": "plain"})


def _fair(*names: str) -> dict[str, Yardsticks]:
    return fair_yardsticks(parse_arms(names), BASE)


def test_an_arm_with_another_loss_has_other_yardsticks() -> None:
    found = _fair("local", "pooled", "fedavg", "silo+logit-adjustment", "control-bn-by-type")
    assert found == {
        "fedavg": Yardsticks("local", "pooled"),
        "silo+logit-adjustment": Yardsticks("local+logit-adjustment", "pooled+logit-adjustment"),
        "control-bn-by-type": Yardsticks("local", "pooled"),
    }


def test_a_yardstick_is_known_by_what_it_trains() -> None:
    """The study's loss is plain already, and words may stand in another order."""
    found = _fair("local", "pooled+no-ace+resnet", "silo+ce", "silo+resnet+no-ace")
    assert found["silo+ce"] == Yardsticks("local", "pooled+ce")
    assert found["silo+resnet+no-ace"] == Yardsticks("local+resnet+no-ace", "pooled+no-ace+resnet")


def _one_training(*names: str) -> list[tuple[str, ...]]:
    return one_training(parse_arms(names), BASE)


def test_arms_that_differ_in_batch_norm_statistics_alone_are_one_training() -> None:
    assert _one_training("local", "fedavg", "silo", "fedbn", "pooled") == [("fedavg", "silo")]
    several = _one_training("silo", "fedprox", "fedprox+silo", "silo+resnet", "fedavg", "average")
    assert several == [("silo", "fedavg", "average"), ("fedprox", "fedprox+silo")]
    assert _one_training("fedavg", "fedbn", "control-bn-by-type", "silo+resnet") == []
    assert _one_training("fedavg+weight-n", "silo+weight-uniform") == []


def test_the_remark_names_them() -> None:
    remark = remark_on_one_training(("fedavg", "silo"))
    assert remark.startswith("fedavg and silo are one training: the same weights")
    assert remark_on_one_training(("a", "b", "c")).startswith("a, b and c are one")
