"""Which predictions are compared with which: arms at each site's own test images, conditions at a left-out centre."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from semc.reporting.predictions import Predictions

Groups = Mapping[str, Sequence[Predictions]]
"""Arm, or condition, to its records."""
LOCAL: Final = "local"
POOLED: Final = "pooled"
"""The two yardsticks, as arms and as conditions: each site alone, and one model on all images in one place."""
CONTROL: Final = "control-"
"""Begins the names of arms that only show a known bug."""
UNADAPTED: Final = "none"
"""The condition other conditions of a left-out centre are compared with."""


def arm_groups(predictions: Sequence[Predictions]) -> dict[str, list[Predictions]]:
    """Return arm to its records of the protocol per_site."""
    groups: dict[str, list[Predictions]] = {}
    for record in predictions:
        if record.protocol == "per_site":
            groups.setdefault(record.arm, []).append(record)
    return groups


def condition_groups(predictions: Sequence[Predictions]) -> dict[str, list[Predictions]]:
    """Return condition to its records of the protocol loco.

    A condition that several arms have is named with its arm, "none (fedavg)".
    """
    records = [record for record in predictions if record.protocol == "loco"]
    arms: dict[str, set[str]] = {}
    for record in records:
        arms.setdefault(record.condition, set()).add(record.arm)
    groups: dict[str, list[Predictions]] = {}
    for record in records:
        several = len(arms[record.condition]) > 1
        name = f"{record.condition} ({record.arm})" if several else record.condition
        groups.setdefault(name, []).append(record)
    return groups


def unadapted(name: str, names: Sequence[str]) -> str | None:
    """Return the group a condition is compared with: the same arm's unadapted model; None where there is none."""
    _, _, arm = name.partition(" (")
    reference = f"{UNADAPTED} ({arm}" if arm else UNADAPTED
    return reference if reference in names and reference != name else None


def is_alone(arm: str) -> bool:
    """Whether an arm is training alone, in any variation."""
    return arm.split("+", maxsplit=1)[0] == LOCAL


def is_pooled(arm: str) -> bool:
    """Whether an arm is training on all images in one place, in any variation."""
    return arm.split("+", maxsplit=1)[0] == POOLED


def is_yardstick(arm: str) -> bool:
    """Whether an arm is training alone, pooled training or a control, in any variation ("local+ce")."""
    return is_alone(arm) or is_pooled(arm) or arm.startswith(CONTROL)


def sites_in_every_group(groups: Groups) -> set[str]:
    """Return the test sites that every group was scored at."""
    return set.intersection(*({record.test_site for record in records} for records in groups.values()))
