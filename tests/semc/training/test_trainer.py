"""Local training: the right step, repeatable bit for bit, resumable, honest about divergence."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from semc.config import StudyConfig
from semc.datasets import Batch
from semc.exit_codes import ExitCode, SemcError
from semc.models import build_model
from semc.seed import seed_everything
from semc.training import RoundPoint, Trainer, TrainResult
from tests.semc.training.tiny import TinyNetwork, objective_of, same, tiny_batches, tiny_study, weights_of

CPU = torch.device("cpu")


def _run(
    study: StudyConfig, network: torch.nn.Module, batches: Iterable[Batch], total_steps: int = 8
) -> tuple[TrainResult, Trainer]:
    trainer = Trainer(study, network, objective_of(study), CPU)
    return trainer.train(batches, global_step=0, total_steps=total_steps), trainer


def _loop(network: TinyNetwork, batches: list[Batch], rate: float, mu: float, clip: float | None) -> None:
    """FedProx's local objective, written with autograd and plain arithmetic (no momentum, no decay)."""
    received = {name: p.detach().clone() for name, p in network.named_parameters()}
    network.train()
    for batch in batches:
        loss = functional.cross_entropy(network(batch.images_BCHW).logits_BK, batch.labels_B)
        for name, parameter in network.named_parameters():
            if parameter.requires_grad and not name.startswith("norm."):
                loss = loss + mu / 2 * ((parameter - received[name]) ** 2).sum()
        trained = [p for p in network.parameters() if p.requires_grad]
        gradients = list(torch.autograd.grad(loss, trained))
        if clip is not None:
            norm = torch.stack([(gradient**2).sum() for gradient in gradients]).sum().sqrt()
            gradients = [gradient * min(1.0, clip / float(norm)) for gradient in gradients]
        with torch.no_grad():
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter.sub_(rate * gradient)


@pytest.mark.parametrize(("mu", "clip"), [(0.0, None), (3.0, None), (0.0, 0.05), (3.0, 0.05)])
def test_steps_equal_the_written_out_loop(mu: float, clip: float | None):
    algorithm = {"federation__algorithm": "fedprox", "federation__proximal_mu": mu} if mu else {}
    study = tiny_study(
        training__momentum=0.0, training__weight_decay=0.0, training__gradient_clip=clip, **algorithm
    )
    batches = list(tiny_batches(5))
    trained, expected = TinyNetwork(), TinyNetwork()
    _run(study, trained, batches)
    _loop(expected, batches, rate=0.05, mu=mu, clip=clip)
    for name, parameter in trained.named_parameters():
        torch.testing.assert_close(parameter, expected.get_parameter(name), atol=1e-6, rtol=1e-5)


def test_the_proximal_term_holds_weights_near_those_received():
    def distance(mu: float) -> float:
        algorithm = {"federation__algorithm": "fedprox", "federation__proximal_mu": mu} if mu else {}
        network = TinyNetwork()
        _run(tiny_study(**algorithm), network, tiny_batches(8))
        start = TinyNetwork()
        return (network.head.weight - start.head.weight).norm().item()

    assert distance(10.0) < 0.5 * distance(0.0)


def test_training_reduces_the_loss_and_reports_means():
    study, network = tiny_study(), TinyNetwork()
    first, trainer = _run(study, network, tiny_batches(4), total_steps=40)
    for number in range(1, 10):
        last = trainer.train(tiny_batches(4, seed=number), global_step=4 * number, total_steps=40)
    assert last.loss < 0.5 * first.loss
    assert (last.num_examples, last.steps, last.expert_use) == (24, 4, (1.0,))
    assert last.seconds > 0
    assert last.terms["ce"] == pytest.approx(last.loss)


def test_means_are_over_images_not_over_batches():
    study = tiny_study(training__learning_rate=1e-9)
    batches = [*tiny_batches(1, size=9), *tiny_batches(1, seed=1, size=3)]
    result, _ = _run(study, TinyNetwork(), batches)
    losses = [_run(study, TinyNetwork(), [batch])[0].loss for batch in batches]
    assert result.loss == pytest.approx((9 * losses[0] + 3 * losses[1]) / 12, rel=1e-5)


def test_frozen_parameters_stay_and_the_mode_is_restored():
    study, network = tiny_study(), TinyNetwork()
    network.eval()
    network.norm.train()
    before = weights_of(network)
    _run(study, network, tiny_batches(2))
    after = weights_of(network)
    assert torch.equal(before["frozen.weight"], after["frozen.weight"])
    assert not torch.equal(before["conv.weight"], after["conv.weight"])
    assert (network.training, network.norm.training) == (False, True)
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.parametrize("method", ["classification", "semc"])
def test_a_round_is_repeatable_and_resumable_bit_for_bit(method: str):
    """Rounds 1 and 2 in one process equal round 2 in a fresh one that loads what round 1 left."""
    study = tiny_study(objective__name=method, training__momentum=0.9, training__schedule="cosine")

    def build() -> tuple[torch.nn.Module, Any, Trainer]:
        network, objective = build_model(study), objective_of(study)
        return network, objective, Trainer(study, network, objective, CPU)

    def play(trainer: Trainer, number: int) -> None:
        seed_everything(number)
        trainer.train(tiny_batches(2, seed=number), global_step=2 * number, total_steps=4)

    network, objective, trainer = build()
    play(trainer, 0)
    saved: tuple[dict[str, Tensor], ...] = (weights_of(network), objective.state_dict(), trainer.state_dict())
    play(trainer, 1)
    fresh_network, fresh_objective, fresh_trainer = build()
    seed_everything(12345)
    fresh_network.load_state_dict(saved[0])
    fresh_objective.load_state_dict(saved[1])
    fresh_trainer.load_state_dict(saved[2])
    play(fresh_trainer, 1)
    assert same(weights_of(network), weights_of(fresh_network))
    assert same(objective.state_dict(), fresh_objective.state_dict())
    assert same(trainer.state_dict(), fresh_trainer.state_dict())
    assert not same(saved[0], weights_of(network))


def test_without_the_momentum_a_resumed_round_differs():
    """The control of the test above: the state is needed."""
    study = tiny_study()

    def second_round(load: bool) -> dict[str, Tensor]:
        network = TinyNetwork()
        _, trainer = _run(study, network, tiny_batches(2))
        resumed = TinyNetwork()
        resumed.load_state_dict(network.state_dict())
        other = Trainer(study, resumed, objective_of(study), CPU)
        if load:
            other.load_state_dict(trainer.state_dict())
        other.train(tiny_batches(2, seed=1), global_step=2, total_steps=8)
        return weights_of(resumed)

    assert not same(second_round(load=True), second_round(load=False))


def test_state_names_every_trainable_parameter_and_is_a_copy():
    study, network = tiny_study(), TinyNetwork()
    _, trainer = _run(study, network, tiny_batches(1))
    state = trainer.state_dict()
    assert set(state) == {
        f"momentum.{name}" for name, parameter in network.named_parameters() if parameter.requires_grad
    }
    before = {name: tensor.clone() for name, tensor in state.items()}
    trainer.train(tiny_batches(1, seed=3), global_step=1, total_steps=8)
    assert same(state, before)
    assert not same(trainer.state_dict(), before)
    assert (
        Trainer(tiny_study(training__momentum=0.0), TinyNetwork(), objective_of(study), CPU).state_dict()
        == {}
    )


@pytest.mark.parametrize("change", ["missing", "shape", "unknown"])
def test_a_foreign_optimiser_state_is_refused(change: str):
    study = tiny_study()
    trainer = Trainer(study, TinyNetwork(), objective_of(study), CPU)
    state = trainer.state_dict()
    if change == "missing":
        del state["momentum.head.bias"]
    elif change == "shape":
        state["momentum.head.bias"] = torch.zeros(7)
    else:
        state["momentum.other"] = torch.zeros(1)
    with pytest.raises(SemcError) as caught:
        trainer.load_state_dict(state)
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID


def test_divergence_is_told_with_its_remedy():
    study, network = tiny_study(), TinyNetwork()
    batch = next(tiny_batches(1))
    broken = Batch(batch.images_BCHW * float("inf"), batch.labels_B, batch.ids_B, batch.groups_B)
    with pytest.raises(SemcError, match="learning_rate") as caught:
        _run(study, network, [batch, broken])
    assert caught.value.code is ExitCode.RUN_FAILED


def test_a_round_without_batches_or_past_the_end_is_refused():
    study = tiny_study()
    with pytest.raises(ValueError, match="batch"):
        _run(study, TinyNetwork(), [])
    with pytest.raises(ValueError, match="outside"):
        _run(study, TinyNetwork(), tiny_batches(3), total_steps=2)


def test_one_epoch_of_semc_trains_every_part_and_fills_the_queue():
    study = tiny_study(objective__name="semc")
    network, objective = build_model(study), objective_of(study)
    before = weights_of(network)
    trainer = Trainer(study, network, objective, CPU)
    seed_everything(0)
    result = trainer.train(tiny_batches(4), global_step=0, total_steps=4)
    after = weights_of(network)
    still = [n for n, p in network.named_parameters() if p.requires_grad and torch.equal(before[n], after[n])]
    assert not still
    assert {"moe", "mc", "alpha"} <= result.terms.keys()
    assert sum(result.expert_use) == pytest.approx(1.0, abs=1e-5)
    assert len(result.expert_use) == 3
    assert any(name.startswith("queue") for name in objective.state_dict())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("bf16", [True, False])
def test_mixed_precision_on_a_gpu(bf16: bool, monkeypatch: pytest.MonkeyPatch):
    """SEMC learns in 16 bits; what objective and exchange see is float32 and finite, and a round resumes."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)
    study = tiny_study(objective__name="semc", training__learning_rate=0.01)
    device = torch.device("cuda")
    network, objective = build_model(study), objective_of(study)
    trainer = Trainer(study, network, objective, device)
    losses = []
    for number in range(8):
        seed_everything(0)
        result = trainer.train(tiny_batches(4), global_step=4 * number, total_steps=32)
        losses.append(result.terms["moe"])
    assert losses[-1] < losses[0]
    output = network.eval()(next(tiny_batches(1)).images_BCHW.to(device))
    assert output.logits_BK.dtype == torch.float32
    assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())
    assert all(p.dtype == torch.float32 for p in network.parameters())
    state = trainer.state_dict()
    assert all(tensor.device.type == "cpu" for tensor in state.values())
    assert ("scaler.scale" in state) is not bf16
    resumed = Trainer(study, build_model(study), objective_of(study), device)
    resumed.load_state_dict(state)
    assert same(resumed.state_dict(), state)


@pytest.mark.parametrize("mu", [0.0, 3.0])
def test_a_round_goes_on_from_a_point_with_the_anchors_that_came_in(mu: float):
    study = tiny_study(**({"federation__algorithm": "fedprox", "federation__proximal_mu": mu} if mu else {}))
    batches, points = list(tiny_batches(5)), []
    whole = TinyNetwork()
    trainer = Trainer(study, whole, objective_of(study), CPU)
    expected = trainer.train(
        batches, global_step=0, total_steps=8, after_step=lambda take: points.append(take())
    )
    assert [point.steps for point in points] == [1, 2, 3, 4, 5]
    for point in points[:4]:
        network = TinyNetwork()
        again = Trainer(study, network, objective_of(study), CPU)
        rest = batches[point.steps :]
        result = again.train(rest, global_step=0, total_steps=8, point=point)
        assert same(weights_of(network), weights_of(whole))
        assert (result.loss, result.steps, result.num_examples) == (expected.loss, 5, 30)
        assert result.expert_use == expected.expert_use
        assert same(again.state_dict(), trainer.state_dict())


def test_a_point_of_another_network_is_refused_and_changes_nothing():
    study, points = tiny_study(), []
    trainer = Trainer(study, TinyNetwork(), objective_of(study), CPU)
    trainer.train(
        tiny_batches(1), global_step=0, total_steps=8, after_step=lambda take: points.append(take())
    )
    for name in ("network/head.bias", "means/loss", "random/torch"):
        tensors = {key: tensor for key, tensor in points[0].tensors.items() if key != name}
        network = TinyNetwork()
        with pytest.raises(SemcError) as caught:
            Trainer(study, network, objective_of(study), CPU).train(
                tiny_batches(1),
                global_step=0,
                total_steps=8,
                point=RoundPoint(points[0].steps, points[0].seconds, tensors),
            )
        assert caught.value.code is ExitCode.CHECKPOINT_INVALID
        assert same(weights_of(network), weights_of(TinyNetwork()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_round_goes_on_from_a_point_on_a_gpu():
    """A GPU adds in any order, so this is not bit-equal; its own generator is part of the point all the same."""
    study, device = tiny_study(objective__name="semc", training__learning_rate=0.01), torch.device("cuda")
    batches, points = list(tiny_batches(4)), []

    def trained(**begin: Any) -> dict[str, Tensor]:
        network = build_model(study)
        seed_everything(0)
        trainer = Trainer(study, network, objective_of(study), device)
        trainer.train(
            batches[begin["point"].steps :] if begin else batches,
            global_step=0,
            total_steps=8,
            after_step=lambda take: points.append(take()),
            **begin,
        )
        return {name: tensor.cpu() for name, tensor in weights_of(network).items()}

    whole = trained()
    assert "random/cuda" in points[1].tensors
    assert all(tensor.device.type == "cpu" for tensor in points[1].tensors.values())
    torch.testing.assert_close(trained(point=points[1]), whole, rtol=1e-2, atol=1e-3)
