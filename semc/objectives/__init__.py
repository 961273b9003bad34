"""Methods a study can name: what one training step minimises."""

from __future__ import annotations

from collections.abc import Sequence

from semc.config import StudyConfig
from semc.exit_codes import ExitCode, SemcError
from semc.objectives.classification import ClassificationObjective
from semc.objectives.memory_queue import MemoryQueue, queue_capacity
from semc.objectives.objective import ImagesOf, LossTerms, Objective
from semc.objectives.semc import SemcObjective
from semc.objectives.semc_dp import SemcDpObjective

__all__ = [
    "ClassificationObjective",
    "ImagesOf",
    "LossTerms",
    "MemoryQueue",
    "Objective",
    "SemcDpObjective",
    "SemcObjective",
    "build_objective",
    "queue_capacity",
]


def build_objective(study: StudyConfig, class_counts: Sequence[int], num_train: int) -> Objective:
    """Return the objective the study names.

    Args:
        study: The study.
        class_counts: Training images of each study class at this site, in study order; they never leave it.
        num_train: Training images of the site.

    Raises:
        SemcError: LABEL_UNKNOWN if the counts do not match the study's classes.
    """
    if len(class_counts) != len(study.data.classes):
        raise SemcError(
            ExitCode.LABEL_UNKNOWN,
            f"{len(class_counts)} class counts were given for a study of {len(study.data.classes)} classes.",
            "count the training images of every study class, 0 for those the site lacks",
        )
    if study.objective.name == "classification":
        return ClassificationObjective(study, class_counts)
    if study.objective.name == "semc_dp":
        return SemcDpObjective(study)
    return SemcObjective(study, class_counts, num_train)
