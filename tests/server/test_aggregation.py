"""Aggregation: by hand, against Flower's own strategies, and whatever the order of arrival."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM
from torch import Tensor

from semc.config import FederationConfig
from semc.wire import WireDtype, pack
from server.aggregation import Aggregator, build_aggregator
from server.aggregation.mean import weighted_mean
from tests.server.federation import set_identity

NAMES = ("a", "b", "norm.weight")
ROUNDS = 4


def _federation(**settings: object) -> FederationConfig:
    return FederationConfig.model_validate({"sites": ["p", "q", "r"], **settings})


def _updates(current: Mapping[str, Tensor], generator: torch.Generator) -> list[dict[str, Tensor]]:
    return [
        {name: tensor + torch.randn(tensor.shape, generator=generator) for name, tensor in current.items()}
        for _ in range(3)
    ]


def _start() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(3, 2, generator=generator) for name in NAMES}


def _aggregator(
    weights: Sequence[float] = (1.0, 1.0, 1.0),
    *,
    updated: Collection[str] = NAMES,
    batch_norm: Collection[str] = (),
    **settings: object,
) -> Aggregator:
    return build_aggregator(
        _federation(**settings),
        dict(zip("pqr", weights, strict=True)),
        updated=updated,
        batch_norm=batch_norm,
    )


def _spooled(
    folder: Path, updates: Mapping[str, Mapping[str, Tensor]], dtype: WireDtype = "fp32"
) -> dict[str, Path]:
    """Write sites' replies as the spool does, in the order given."""
    folder.mkdir(parents=True, exist_ok=True)
    for site, update in updates.items():
        (folder / site).write_bytes(pack(update, dtype))
    return {site: folder / site for site in updates}


def _next(
    folder: Path,
    aggregator: Aggregator,
    current: Mapping[str, Tensor],
    updates: Sequence[Mapping[str, Tensor]],
) -> dict[str, Tensor]:
    """Let the sites p, q, r answer one round."""
    return aggregator.next_model(current, _spooled(folder, dict(zip("pqr", updates, strict=True))))


def test_mean_of_two_sites_by_hand() -> None:
    mean = weighted_mean([(1.0, torch.tensor([1.0, 10.0])), (3.0, torch.tensor([5.0, -10.0]))])
    assert mean.dtype == torch.float64
    assert mean.tolist() == [4.0, -5.0]


def test_mean_of_equal_tensors_is_that_tensor_bit_for_bit() -> None:
    tensor = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    mean = weighted_mean([(float(weight), tensor) for weight in (7, 113, 39)])
    assert torch.equal(mean.float(), tensor)


def test_mean_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        weighted_mean([])


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        ("fedavg", {}),
        ("fedavgm", {"server_learning_rate": 0.7, "server_momentum": 0.9}),
        ("fedadam", {"server_learning_rate": 0.1, "server_momentum": 0.9, "server_beta2": 0.99}),
    ],
)
def test_equals_flowers_strategy(tmp_path: Path, algorithm: str, settings: dict[str, float]) -> None:
    set_identity()
    weights = [10, 20, 70]
    flower: FedAvg
    match algorithm:
        case "fedavg":
            flower = FedAvg()
        case "fedavgm":
            flower = FedAvgM(server_learning_rate=0.7, server_momentum=0.9)
        case _:
            flower = FedAdam(eta=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3)
    ours = _aggregator(weights, algorithm=algorithm, **settings)
    current = _start()
    theirs = ArrayRecord({name: _array(tensor) for name, tensor in current.items()})
    generator = torch.Generator().manual_seed(2)
    for number in range(1, ROUNDS + 1):
        updates = _updates(current, generator)
        if hasattr(flower, "current_arrays"):
            # What configure_train would note; it needs a grid.
            arrays = theirs if algorithm == "fedavgm" else {k: a.numpy() for k, a in theirs.items()}
            flower.current_arrays = arrays
        replies = [_reply(update, weight) for update, weight in zip(updates, weights, strict=True)]
        aggregated, _ = flower.aggregate_train(number, replies)
        assert aggregated is not None
        theirs = aggregated
        current = _next(tmp_path, ours, current, updates)
        for name in NAMES:
            np.testing.assert_allclose(current[name].numpy(), theirs[name].numpy(), rtol=2e-5, atol=2e-6)


def _array(tensor: Tensor):
    from flwr.app import Array

    return Array(tensor.numpy())


def _reply(update: Mapping[str, Tensor], weight: int) -> Message:
    question = Message(RecordDict({"config": ConfigRecord({})}), 5, "train")
    content = RecordDict(
        {
            "arrays": ArrayRecord({name: _array(tensor) for name, tensor in update.items()}),
            "metrics": MetricRecord({"num-examples": weight}),
        }
    )
    return Message(content, reply_to=question)


@pytest.mark.parametrize("algorithm", ["fedavgm", "fedadam"])
def test_batch_norm_takes_the_plain_mean_and_others_do_not(tmp_path: Path, algorithm: str) -> None:
    current = _start()
    updates = _updates(current, torch.Generator().manual_seed(3))
    aggregator = _aggregator(batch_norm={"norm.weight"}, algorithm=algorithm, server_learning_rate=0.5)
    following = _next(tmp_path, aggregator, current, updates)
    plain = {name: torch.stack([update[name].double() for update in updates]).mean(0) for name in NAMES}
    torch.testing.assert_close(following["norm.weight"].double(), plain["norm.weight"], atol=1e-7, rtol=1e-6)
    assert not torch.allclose(following["a"].double(), plain["a"], atol=1e-3)
    assert all("norm.weight" not in name for name in aggregator.state_dict())


@pytest.mark.parametrize("algorithm", ["fedavg", "fedavgm", "fedadam"])
def test_continuing_from_saved_state_is_bit_equal(tmp_path: Path, algorithm: str) -> None:
    def make() -> Aggregator:
        return _aggregator((1.0, 2.0, 3.0), algorithm=algorithm, server_learning_rate=0.5)

    straight, broken = make(), make()
    generator = torch.Generator().manual_seed(4)
    one = two = _start()
    for _ in range(3):
        updates = _updates(one, generator)
        one = _next(tmp_path, straight, one, updates)
        two = _next(tmp_path, broken, two, updates)
        state = {name: tensor.clone() for name, tensor in broken.state_dict().items()}
        broken = make()
        broken.load_state_dict(state)
    assert all(torch.equal(one[name], two[name]) for name in NAMES)


@pytest.mark.parametrize("algorithm", ["fedavg", "fedavgm", "fedadam"])
def test_what_no_site_sends_back_stays_bit_for_bit(tmp_path: Path, algorithm: str) -> None:
    current = _start()
    aggregator = _aggregator(updated={"b"}, algorithm=algorithm, server_learning_rate=0.5)
    generator = torch.Generator().manual_seed(6)
    for _ in range(2):
        following = _next(
            tmp_path, aggregator, current, [{"b": torch.randn(3, 2, generator=generator)} for _ in "pqr"]
        )
        assert list(following) == list(NAMES)
        assert all(torch.equal(following[name], current[name]) for name in ("a", "norm.weight"))
        assert not torch.equal(following["b"], current["b"])
        current = following
    assert not any(
        name.endswith(("/a", "/norm.weight")) or name in NAMES[::2] for name in aggregator.state_dict()
    )


def test_order_of_arrival_changes_no_bit(tmp_path: Path) -> None:
    current = _start()
    updates = dict(zip("pqr", _updates(current, torch.Generator().manual_seed(5)), strict=True))
    results = []
    for order in ("pqr", "rpq"):
        payloads = _spooled(tmp_path / order, {site: updates[site] for site in order})
        results.append(_aggregator((10.0, 20.0, 30.0)).next_model(current, payloads))
    assert all(torch.equal(results[0][name], results[1][name]) for name in NAMES)


def test_bf16_replies_are_averaged_in_float64(tmp_path: Path) -> None:
    one_bf16_step_apart = {"p": {"a": torch.tensor([1.0])}, "q": {"a": torch.tensor([1.0078125])}}
    payloads = _spooled(tmp_path, one_bf16_step_apart, "bf16")
    following = _aggregator().next_model({"a": torch.zeros(1)}, payloads)
    assert following["a"].item() == pytest.approx(1.00390625, abs=1e-9)


@pytest.mark.parametrize(("settings", "much"), [({}, False), ({"server_learning_rate": 1.0}, True)])
def test_fedadam_moves_by_default_about_as_far_as_the_sites(
    tmp_path: Path, settings: dict[str, float], much: bool
) -> None:
    """Its first step has the size of its learning rate in every weight; sites move a weight by about 0.002."""
    generator = torch.Generator().manual_seed(0)
    current = {"w": 0.05 * torch.randn(1000, generator=generator)}
    updates = [{"w": current["w"] + 0.002 * torch.randn(1000, generator=generator)} for _ in range(3)]
    moved = _next(tmp_path, _aggregator(updated=current, algorithm="fedadam", **settings), current, updates)
    rms = (moved["w"] - current["w"]).square().mean().sqrt().item()
    assert (rms > 0.02) is much
    assert rms > 1e-4
