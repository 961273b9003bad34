"""Local training and evaluation of any network and objective."""

from semc.training.batch_norm import reestimate_statistics
from semc.training.evaluator import Evaluation, evaluate
from semc.training.optim import build_optimizer, learning_rate
from semc.training.train_result import TrainResult
from semc.training.trainer import Trainer

__all__ = [
    "Evaluation",
    "TrainResult",
    "Trainer",
    "build_optimizer",
    "evaluate",
    "learning_rate",
    "reestimate_statistics",
]
