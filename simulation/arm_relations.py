"""How the arms of one experiment stand to each other: whose yardsticks they are, and which are one training."""

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


def one_training(arms: Sequence[Arm], base: StudyConfig) -> list[tuple[str, ...]]:
    """Return the groups of two arms and more that train the same weights.

    `federation.bn` average and silo differ in the running statistics of batch norm alone. Training normalises by the
    batch at hand and a server optimiser never touches batch norm, so the statistics take no part in it; they count
    only when the model answers. Under fedbn gamma and beta stay at the sites, which is another training.

    Args:
        arms: All arms of the experiment.
        base: The study they are variations of.
    """
    groups: dict[str, list[str]] = {}
    for arm in arms:
        study = arm.study(base, base.seed)
        if arm.kind == "federated" and study.federation.bn in ("average", "silo"):
            federation = study.federation.model_copy(update={"bn": "silo"})
            groups.setdefault(study.model_copy(update={"federation": federation}).digest(), []).append(
                arm.name
            )
    return [tuple(names) for names in groups.values() if len(names) > 1]


def remark_on_one_training(names: Sequence[str]) -> str:
    """Return what a reader of a table with arms of one training must know."""
    return (
        f"{', '.join(names[:-1])} and {names[-1]} are one training: the same weights, which answer with averaged or "
        "with each centre's own batch-norm statistics. Where they agree, nothing is confirmed twice."
    )


def _yardstick(arm: Arm, kind: Literal["local", "pooled"], arms: Sequence[Arm], base: StudyConfig) -> str:
    """Return the name of an arm's yardstick, that of an equal arm where one was run."""
    fair = arm.yardstick(kind)
    run = {other.name: other.study(base, base.seed) for other in arms if other.kind == kind}
    try:
        wanted = fair.study(base, base.seed)
    except SemcError:  # what the study refuses was not run either
        return fair.name
    return next((name for name, study in run.items() if study == wanted), fair.name)
