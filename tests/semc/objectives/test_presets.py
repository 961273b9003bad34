"""Every preset's objective on the real network: one finite step, gradients everywhere, pure evaluation."""

from __future__ import annotations

import pytest
import torch

from semc.config import StudyConfig, parse_study
from semc.models import build_model
from semc.objectives import build_objective
from tests.semc.objectives.tiny_network import STUDY, batch32

OVERRIDES: dict[str, dict[str, object]] = {
    "robust": {},
    "paper": {},
    "reference": {},
    "robust-gpaco": {
        "objective.mc_loss": "gpaco",
        "objective.expert_ce_weight": 0.0,
        "objective.importance_weight": 0.0,
    },
    "robust-one-expert": {"model.experts": 1},
    "robust-no-mc": {"objective.mc": False},
    "robust-ema": {"objective.key_encoder": "ema", "objective.queue_balanced": True},
    "robust-classification": {"objective.name": "classification"},
}


def study_of(name: str) -> StudyConfig:
    overrides = {"preset": name.partition("-")[0], "model.samc_expansion": 1, **OVERRIDES[name]}
    return parse_study(STUDY, overrides)


@pytest.mark.parametrize("name", OVERRIDES)
def test_one_step_trains_every_trainable_parameter(name: str) -> None:
    study = study_of(name)
    torch.manual_seed(0)
    network, objective = build_model(study), build_objective(study, (4, 4, 4), 12)
    objective.new_global_weights(network)
    for first in (0, 6):
        terms = objective.step(network, batch32(6, first_id=first), 0.5)
        network.zero_grad()
        terms.total.backward()
        objective.after_step(network)
    assert bool(torch.isfinite(terms.total))
    assert sum(terms.expert_use_N) == pytest.approx(1.0)
    for parameter_name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert bool(torch.isfinite(parameter.grad).all()), parameter_name
        else:
            assert parameter.grad is None, parameter_name


def test_evaluation_changes_no_queue_byte_and_repeats_bit_for_bit() -> None:
    study = study_of("robust")
    network, objective = build_model(study), build_objective(study, (4, 4, 4), 12)
    objective.step(network, batch32(6), 0.0)
    objective.after_step(network)
    before = objective.state_dict()
    network.eval()
    with torch.no_grad():
        first, second = network(batch32(5).images_BCHW), network(batch32(5).images_BCHW)
    assert torch.equal(first.logits_BK, second.logits_BK)
    objective.after_step(network)
    for name, tensor in objective.state_dict().items():
        assert tensor.numpy().tobytes() == before[name].numpy().tobytes(), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["robust", "reference"])
def test_a_step_under_mixed_precision_on_a_gpu(name: str) -> None:
    study = study_of(name)
    network, objective = build_model(study).cuda(), build_objective(study, (4, 4, 4), 12)
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=1e-3)
    for first in (0, 6, 12):
        data = batch32(6, first_id=first, device="cuda")
        with torch.autocast("cuda", dtype=torch.bfloat16):
            terms = objective.step(network, data, 0.5)
        assert terms.total.dtype == torch.float32
        assert bool(torch.isfinite(terms.total))
        optimiser.zero_grad()
        terms.total.backward()
        optimiser.step()
        objective.after_step(network)
    state = objective.state_dict()
    norms = state["queue.embeddings"][state["queue.ids"] >= 0].norm(dim=1)
    assert len(norms) == 36
    torch.testing.assert_close(norms, torch.ones_like(norms))
    resumed = build_objective(study, (4, 4, 4), 12)
    resumed.load_state_dict(state)
    resumed.step(network, batch32(6, first_id=18, device="cuda"), 0.5)
