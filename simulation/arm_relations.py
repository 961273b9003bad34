"""How the arms of one experiment stand to each other: by which yardsticks each is fairly measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from semc.config import StudyConfig
from semc.exit_codes import SemcError
from semc.reporting.yardsticks import Yardsticks
from simulation.arms import Arm


def fair_yardsticks(arms: Sequence[Arm], base: StudyConfig) -> dict[str, Yardsticks]:
    """Return every arm but the yardsticks to the two with its own loss and network.

    A yardstick is known by what it trains, not by its name: where the study has the arm's loss already, or the words
    stand in another order, the arm that was run serves. One that was not run keeps the name it would have.

    Args:
        arms: All arms of the experiment.
        base: The study they are variations of.
    """
    return {
        arm.name: Yardsticks(_yardstick(arm, "local", arms, base), _yardstick(arm, "pooled", arms, base))
        for arm in arms
        if arm.kind not in ("local", "pooled")
    }


def _yardstick(arm: Arm, kind: Literal["local", "pooled"], arms: Sequence[Arm], base: StudyConfig) -> str:
    """Return the name of an arm's yardstick, that of an equal arm where one was run."""
    fair = arm.yardstick(kind)
    run = {other.name: other.study(base, base.seed) for other in arms if other.kind == kind}
    try:
        wanted = fair.study(base, base.seed)
    except SemcError:  # what the study refuses was not run either
        return fair.name
    return next((name for name, study in run.items() if study == wanted), fair.name)
