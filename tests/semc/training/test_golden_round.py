"""Stored numbers of one small round; a change of network, losses, seeds or optimiser shows here.

To print them anew: `python -m pytest tests/semc/training/test_golden_round.py -s`, and tell the change in
CHANGELOG.md ("changes numbers: yes"). The tolerance is for other processors' order of summation.
"""

import pytest
import torch

from semc.models import build_model
from semc.seed import seed_everything
from semc.training import Trainer
from tests.semc.training.tiny import objective_of, tiny_batches, tiny_study

GOLDEN = {
    "classification": ({"ce": 0.679348}, (1.0,)),
    "semc": (
        {
            "moe": 0.960367,
            "alpha": 0.568370,
            "mc": 4.156475,
            "sup": 2.293674,
            "self": 3.725603,
            "expert_ce": 1.029180,
            "importance": 0.090025,
            "queue_fill": 0.070313,
            "key_age": 0.375,
        },
        (0.377942, 0.290491, 0.331567),
    ),
}


@pytest.mark.parametrize("method", GOLDEN)
def test_one_round_gives_the_stored_numbers(method: str):
    study = tiny_study(objective__name=method, training__learning_rate=0.01)
    network = build_model(study)
    seed_everything(0)
    trainer = Trainer(study, network, objective_of(study), torch.device("cpu"))
    result = trainer.train(tiny_batches(4), global_step=0, total_steps=4)
    print(method, result)
    terms, use = GOLDEN[method]
    assert result.terms == pytest.approx(terms, rel=2e-3)
    assert result.expert_use == pytest.approx(use, rel=2e-3)
