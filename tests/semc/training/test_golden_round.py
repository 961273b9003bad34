"""Stored numbers of one small round; a change of network, losses, seeds or optimiser shows here.

In float64: batch norm over the few values of these small maps turns float32's order of summation, another on every
kind of processor, into percents. Memory queues hold float32 and are tested for themselves.

To print them anew: `python -m pytest tests/semc/training/test_golden_round.py -s`, and tell the change in
CHANGELOG.md ("changes numbers: yes").
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from semc.models import build_model
from semc.seed import seed_everything
from semc.training import Trainer
from tests.semc.training.tiny import objective_of, tiny_batches, tiny_study

GOLDEN = {
    "classification": ({"ce": 0.70746384}, (1.0,)),
    "semc": (
        {
            "moe": 1.16317696,
            "alpha": 0.61240084,
            "mc": 4.14273914,
            "sup": 2.41193470,
            "self": 3.46160889,
            "expert_ce": 1.15333508,
            "importance": 0.22301305,
        },
        (0.18806478, 0.46211591, 0.34981931),
    ),
}


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("method", GOLDEN)
def test_one_round_gives_the_stored_numbers(method: str, float64: None):
    study = tiny_study(objective__name=method, objective__queue=False, training__learning_rate=0.01)
    network = build_model(study).double()
    seed_everything(0)
    trainer = Trainer(study, network, objective_of(study), torch.device("cpu"))
    batches = [replace(batch, images_BCHW=batch.images_BCHW.double()) for batch in tiny_batches(4)]
    result = trainer.train(batches, global_step=0, total_steps=4)
    print(method, result)
    terms, use = GOLDEN[method]
    assert result.terms == pytest.approx(terms, rel=1e-5)
    assert result.expert_use == pytest.approx(use, rel=1e-5)
