"""How arms stand to each other: whose yardsticks they are."""

from __future__ import annotations

from semc.config import load_study
from semc.reporting.yardsticks import Yardsticks
from simulation.arm_relations import fair_yardsticks
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
