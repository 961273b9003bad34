"""Local training and evaluation of any network and objective.

:mod:`semc.training.private_trainer` is imported by its own name: opacus takes 1.5 s to load, and most commands train
nothing private.
"""

from semc.training.adaptation import (
    AdaptationReport,
    LayerDrift,
    adapt_statistics,
    blend_statistics,
    predicted_counts,
)
from semc.training.batch_norm import (
    NormStatistics,
    reestimate_statistics,
    set_statistics,
    statistics_of,
)
from semc.training.evaluator import Evaluation, evaluate
from semc.training.feature_memory import FeatureMemory
from semc.training.optim import build_optimizer, learning_rate
from semc.training.round_point import AfterStep, RoundPoint, TakePoint
from semc.training.train_result import TrainResult
from semc.training.trainer import Trainer

__all__ = [
    "AdaptationReport",
    "AfterStep",
    "Evaluation",
    "FeatureMemory",
    "LayerDrift",
    "NormStatistics",
    "RoundPoint",
    "TakePoint",
    "TrainResult",
    "Trainer",
    "adapt_statistics",
    "blend_statistics",
    "build_optimizer",
    "evaluate",
    "learning_rate",
    "predicted_counts",
    "reestimate_statistics",
    "set_statistics",
    "statistics_of",
]
