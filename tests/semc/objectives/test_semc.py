"""The paper's total against sums of slow loops; what a step may change and what only after_step may."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from semc.exit_codes import ExitCode, SemcError
from semc.losses import ContrastivePool, importance_cv_squared
from semc.models import SEMCOutput
from semc.objectives import LossTerms, Objective, build_objective
from tests.semc.losses.oracles import slow_gpaco, slow_selfcon, slow_supcon
from tests.semc.objectives.tiny_network import TinyExperts, batch, study

COUNTS = (20, 5, 15)


def objective(counts: tuple[int, ...] = COUNTS, num_train: int = 40, **settings: object) -> Objective:
    return build_objective(study(**settings), counts, num_train)


def run(
    target: Objective, network: TinyExperts, steps: int, size: int = 4, rate: float = 0.05
) -> list[LossTerms]:
    """Train `steps` steps, as the trainer does."""
    optimiser = torch.optim.SGD(network.parameters(), lr=rate)
    results = []
    for step in range(steps):
        terms = target.step(network, batch(size, first_id=step * size), step / steps)
        optimiser.zero_grad()
        terms.total.backward()
        optimiser.step()
        target.after_step(network)
        results.append(terms)
    return results


def assert_same_state(one: Objective, other: Objective) -> None:
    assert one.state_dict().keys() == other.state_dict().keys()
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize("anchors", ["first", "all"])
@pytest.mark.parametrize("mc_loss", ["supcon_selfcon", "gpaco"])
@pytest.mark.parametrize("cross_entropy", ["plain", "inverse_frequency", "logit_adjusted", "fedlc"])
def test_the_total_is_the_papers_sum(anchors: str, mc_loss: str, cross_entropy: str) -> None:
    """Equations 13-15 and 19 element by element, with a part-filled queue."""
    balance = {} if mc_loss == "supcon_selfcon" else {"expert_ce_weight": 0.0, "importance_weight": 0.0}
    target = objective(
        anchors=anchors,
        mc_loss=mc_loss,
        cross_entropy=cross_entropy,
        alpha="fixed",
        alpha_fixed=0.3,
        selfcon_neighbours=2,
        selfcon_threshold=0.2,
        selfcon_start_fraction=0.5,
        **balance,
    )
    network = TinyExperts(alpha_outputs=0).double()
    run(target, network, 3)
    data = batch(5, first_id=10)  # ids 10 and 11 are in the queue too
    terms = target.step(network, data, progress=0.5)

    output = network(data.images_BCHW)
    queue = {name.removeprefix("queue."): tensor for name, tensor in target.state_dict().items()}
    assert output.embeddings_NBD is not None
    pool = ContrastivePool.of_batch(output.embeddings_NBD, data.labels_B, data.ids_B)
    pool = pool.with_queue(queue["embeddings"], queue["labels"], queue["ids"], queue["valid"])
    assert len(pool.labels_P) == 15 + 24
    rows = 5 if anchors == "first" else 15
    prior = torch.tensor([0.5, 0.125, 0.375], dtype=torch.float64)
    margin = -(torch.tensor(COUNTS, dtype=torch.float64) ** -0.25)
    offset = {"logit_adjusted": prior.log(), "fedlc": margin}.get(cross_entropy, torch.zeros_like(prior))

    if mc_loss == "gpaco":
        settings = {"temperature": 0.2, "alpha": 0.05, "beta": 1.0, "smoothing": 0.1}
        logits = output.expert_logits_NBK.flatten(0, 1)[:rows].tolist()
        anchor_losses = torch.tensor(slow_gpaco(pool, logits, offset.tolist(), settings)[0])
        mc = anchor_losses.view(-1, 5).mean(0)
    else:
        mc = torch.zeros(5)
        for weight, slow in (
            (1.0, slow_supcon(pool, rows, 0.2)),
            (0.5, slow_selfcon(pool, rows, 0.2, 2, 0.2)),
        ):
            for image in range(5):
                values = [value for value in slow[image::5] if value is not None]
                mc[image] += weight * sum(values) / max(1, len(values))

    def ce(logits: torch.Tensor) -> torch.Tensor:
        plain = functional.cross_entropy(logits + offset, data.labels_B, reduction="none")
        if cross_entropy != "inverse_frequency":
            return plain
        weights = 1 / prior[data.labels_B]
        return plain * weights / weights.mean()

    expected = (0.3 * ce(output.logits_BK) + 0.7 * mc).mean()
    if mc_loss == "supcon_selfcon":
        expected = (
            expected + 0.3 * torch.stack([ce(logits).mean() for logits in output.expert_logits_NBK]).mean()
        )
        expected = expected + 0.01 * importance_cv_squared(output.gate_weights_BN)
    torch.testing.assert_close(terms.total, expected, rtol=1e-6, atol=0)
    assert terms.expert_use_N == pytest.approx(output.gate_weights_BN.mean(0).tolist())
    assert terms.terms["alpha"] == pytest.approx(0.3)
    assert terms.terms["queue_fill"] == pytest.approx(24 / 256)


def test_a_step_leaves_the_queue_bytes_unchanged_until_after_step() -> None:
    target, network = objective(), TinyExperts().double()
    run(target, network, 2)
    before = target.state_dict()
    target.step(network, batch(first_id=100), 0.9).total.backward()
    for name, tensor in target.state_dict().items():
        assert tensor.numpy().tobytes() == before[name].numpy().tobytes(), name
    target.after_step(network)
    assert {100, 101, 102, 103} <= set(target.state_dict()["queue.ids"].tolist())


def test_an_evaluation_forward_enqueues_nothing_and_after_step_pushes_once() -> None:
    target, network = objective(), TinyExperts().double()
    run(target, network, 2)
    before = target.state_dict()
    network.eval()
    with torch.no_grad():
        network(batch(first_id=500).images_BCHW)
    target.after_step(network)
    for name, tensor in target.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize(("experts", "expected"), [(1, [0]), (2, [1]), (3, [1, 2]), (4, [1, 2, 3])])
def test_the_keys_are_the_experts_after_the_first(experts: int, expected: list[int]) -> None:
    target, network = objective(), TinyExperts(experts=experts).double()
    data = batch(first_id=7)
    embeddings = network(data.images_BCHW).embeddings_NBD
    assert embeddings is not None
    run_once = target.step(network, data, 0.0)
    target.after_step(network)
    state = target.state_dict()
    rows = 4 * len(expected)
    torch.testing.assert_close(state["queue.embeddings"][:rows], embeddings[expected].flatten(0, 1).float())
    assert state["queue.ids"][:rows].tolist() == [7, 8, 9, 10] * len(expected)
    assert state["queue.labels"][:rows].tolist() == data.labels_B.tolist() * len(expected)
    assert int(state["queue.valid"].sum()) == rows
    assert len(run_once.expert_use_N) == experts


def test_keys_come_from_before_the_optimisers_step() -> None:
    target, network = objective(), TinyExperts().double()
    data = batch()
    with torch.no_grad():
        old = network(data.images_BCHW).embeddings_NBD[1:].flatten(0, 1).float()  # type: ignore[index]
    target.step(network, data, 0.0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1.0)
    target.after_step(network)
    torch.testing.assert_close(target.state_dict()["queue.embeddings"][:8], old)


def test_an_empty_queue_is_bit_for_bit_no_queue() -> None:
    with_queue, without = objective(), objective(queue=False)
    network, data = TinyExperts(), batch(dtype=torch.float32)
    one, other = with_queue.step(network, data, 0.0).total, without.step(network, data, 0.0).total
    assert torch.equal(one, other)
    assert not any(name.startswith("queue") for name in without.state_dict())
    gradients = [
        torch.autograd.grad(total, list(network.parameters()), allow_unused=True) for total in (one, other)
    ]
    for a, b in zip(*gradients, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def test_every_parameter_gets_a_gradient() -> None:
    target, network = objective(), TinyExperts().double()
    run(target, network, 1, rate=0.0)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert bool((parameter.grad != 0).any()), name


def test_alpha_network_learns_without_touching_the_encoder() -> None:
    """Learned alpha: d total / d alpha_b = (moe - mc) / B reaches the alpha network alone."""
    network, data = TinyExperts(alpha_outputs=1).double(), batch()
    target = objective(alpha="learned", expert_ce_weight=0.0, importance_weight=0.0)
    total = target.step(network, data, 0.0).total
    assert network.alpha is not None
    (bias_gradient,) = torch.autograd.grad(total, network.alpha.bias)
    alpha = network(data.images_BCHW).alpha_raw_BA.sigmoid()[:, 0]  # type: ignore[union-attr]
    moe_only = objective(mc=False, expert_ce_weight=0.0, importance_weight=0.0)
    moe = moe_only.step(network, data, 0.0).terms["moe"]
    mc_only = objective(alpha="fixed", alpha_fixed=0.0, expert_ce_weight=0.0, importance_weight=0.0)
    per_image = [moe, mc_only.step(network, data, 0.0).total.item()]
    assert per_image[1] > per_image[0]
    assert bias_gradient.item() < 0  # gradient descent raises alpha: towards the smaller loss
    assert bool(((alpha > 0) & (alpha < 1)).all())


def test_without_contrastive_branch_alpha_is_one() -> None:
    target, network = (
        objective(mc=False, expert_ce_weight=0.0, importance_weight=0.0),
        TinyExperts(mc=False).double(),
    )
    data = batch()
    terms = target.step(network, data, 0.0)
    target.after_step(network)
    prior = torch.tensor([0.5, 0.125, 0.375], dtype=torch.float64)
    expected = functional.cross_entropy(network(data.images_BCHW).logits_BK + prior.log(), data.labels_B)
    torch.testing.assert_close(terms.total, expected, rtol=1e-6, atol=0)
    assert terms.terms == {"moe": pytest.approx(expected.item(), rel=1e-6), "alpha": 1.0}
    assert target.state_dict() == {}


def test_a_network_without_embeddings_is_refused() -> None:
    with pytest.raises(ValueError, match="embeddings"):
        objective().step(TinyExperts(mc=False).double(), batch(), 0.0)


def test_mining_starts_at_its_share_of_the_study() -> None:
    settings = {"selfcon_neighbours": 5, "selfcon_threshold": -1.0, "selfcon_start_fraction": 0.5}
    network, data = TinyExperts().double(), batch()
    mined, views = objective(**settings), objective(selfcon_neighbours=0)
    early = mined.step(network, data, 0.49).total
    assert torch.equal(early, views.step(network, data, 0.49).total)
    assert not torch.equal(early, mined.step(network, data, 0.5).total)


def test_a_zero_weight_drops_selfcon() -> None:
    terms = objective(selfcon_weight=0.0).step(TinyExperts().double(), batch(), 0.0).terms
    assert "self" not in terms
    assert terms["mc"] == terms["sup"]


@pytest.mark.parametrize("alpha", ["learned", "uncertainty", "fixed", "prior", "reference"])
@pytest.mark.parametrize("experts", [1, 3])
def test_distinct_labels_and_one_class_batches_stay_finite(alpha: str, experts: int) -> None:
    """No positives at all, then nothing but positives."""
    network = TinyExperts(experts=experts, alpha_outputs=2 if alpha == "uncertainty" else 1).double()
    target = objective(alpha=alpha, queue=False)
    for labels in ([0, 1, 2], [1, 1, 1]):
        terms = target.step(network, batch(3, labels=labels), 0.0)
        terms.total.backward()
        target.after_step(network)
        assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
        assert 0 <= terms.terms["alpha"] <= 1


def test_a_site_without_a_class_never_pushes_its_scores_down() -> None:
    network = TinyExperts().double()
    target = objective(counts=(9, 11, 0))
    target.step(network, batch(labels=[0, 1, 1, 0]), 0.0).total.backward()
    for expert in network.experts:
        assert bool((expert.weight.grad[2] == 0).all())
        assert bool((expert.weight.grad[:2] != 0).any())
    with pytest.raises(SemcError) as refused:
        target.step(network, batch(labels=[0, 1, 2, 0]), 0.0)
    assert refused.value.code is ExitCode.LABEL_UNKNOWN


def test_batches_of_any_size_wrap_the_queue() -> None:
    target = objective(queue_size=15, num_train=9)
    network = TinyExperts().double()
    pushed: list[int] = []
    for first, size in ((0, 4), (4, 3), (7, 2), (9, 4)):
        target.step(network, batch(size, first_id=first), 0.0)
        target.after_step(network)
        pushed += 2 * list(range(first, first + size))
    assert sorted(target.state_dict()["queue.ids"].tolist()) == sorted(pushed[-15:])


@pytest.mark.parametrize(("policy", "kept"), [("clear", False), ("keep", True)])
def test_new_global_weights_clear_or_keep_the_queue(policy: str, kept: bool) -> None:
    target, network = objective(queue_on_update=policy), TinyExperts().double()
    run(target, network, 2)
    before = target.state_dict()
    target.step(network, batch(first_id=50), 0.0)  # an unfinished step must not reach the new round's queue
    target.new_global_weights(network)
    target.after_step(network)
    after = target.state_dict()
    assert bool(after["queue.valid"].any()) is kept
    assert torch.equal(after["queue.ids"], before["queue.ids"]) is kept
    assert 50 not in after["queue.ids"].tolist()


def test_the_reference_queue_is_full_from_the_start_and_seeded_by_the_study() -> None:
    one, same = objective(queue_init="reference"), objective(queue_init="reference")
    assert_same_state(one, same)
    assert bool(one.state_dict()["queue.valid"].all())
    terms = one.step(TinyExperts().double(), batch(), 0.0)
    assert terms.terms["queue_fill"] == 1.0


@pytest.mark.parametrize(("alpha", "balanced"), [("uncertainty", True), ("prior", False)])
def test_saved_state_continues_bit_for_bit(alpha: str, balanced: bool, tmp_path: Path) -> None:
    settings = {"alpha": alpha, "queue_balanced": balanced, "queue_on_update": "keep"}
    whole, network = objective(**settings), TinyExperts().double()
    run(whole, network, 3)
    save_file(whole.state_dict(), tmp_path / "state.safetensors")
    resumed, copy = objective(**settings), TinyExperts().double()
    resumed.load_state_dict(load_file(tmp_path / "state.safetensors"))
    copy.load_state_dict(network.state_dict())
    for one, other in zip(run(whole, network, 3), run(resumed, copy, 3), strict=True):
        assert torch.equal(one.total, other.total)
        assert one.terms == other.terms
    assert_same_state(whole, resumed)


def test_a_state_of_other_settings_is_refused() -> None:
    target = objective()
    for state in (
        objective(alpha="prior").state_dict(),
        objective(queue=False).state_dict(),
        objective(num_train=999).state_dict(),
    ):
        with pytest.raises(SemcError) as refused:
            target.load_state_dict(state)
        assert refused.value.code is ExitCode.CHECKPOINT_INVALID


def test_no_local_state_is_part_of_the_network() -> None:
    target, network = objective(key_encoder="ema"), TinyExperts().double()
    names = set(network.state_dict())
    run(target, network, 2)
    assert set(network.state_dict()) == names
    assert all(name.startswith("queue.") for name in target.state_dict())


def test_ema_keys_come_from_the_slow_copy() -> None:
    target, network = objective(key_encoder="ema"), TinyExperts().double()
    target.new_global_weights(network)
    slow = TinyExperts().double()
    run(target, network, 1, rate=0.5)
    start = {name: p.detach().clone() for name, p in slow.named_parameters()}
    with torch.no_grad():
        for name, parameter in slow.named_parameters():
            parameter.copy_(0.999 * start[name] + 0.001 * network.get_parameter(name))
    data = batch(first_id=40)
    with torch.no_grad():
        expected = slow(data.images_BCHW).embeddings_NBD
        online = network(data.images_BCHW).embeddings_NBD
    target.step(network, data, 0.0)
    target.after_step(network)
    assert expected is not None
    assert online is not None
    stored = target.state_dict()["queue.embeddings"][8:16]
    torch.testing.assert_close(stored, expected[1:].flatten(0, 1).float())
    assert not torch.allclose(stored, online[1:].flatten(0, 1).float(), atol=1e-3)


def test_the_ema_restarts_from_received_weights_and_leaves_the_network_alone() -> None:
    target, network = objective(key_encoder="ema"), TinyExperts().double()
    run(target, network, 2, rate=0.5)
    received = TinyExperts(seed=9).double()
    network.load_state_dict(received.state_dict())
    target.new_global_weights(network)
    data = batch(first_id=40)
    expected = received(data.images_BCHW).embeddings_NBD
    terms = target.step(network, data, 0.0)
    plain = objective().step(TinyExperts(seed=9).double(), data, 0.0)
    assert torch.equal(terms.total, plain.total)
    target.after_step(network)
    assert expected is not None
    torch.testing.assert_close(
        target.state_dict()["queue.embeddings"][:8], expected[1:].flatten(0, 1).detach().float()
    )
    for name, tensor in network.named_parameters():
        assert torch.equal(tensor, received.get_parameter(name)), name
        assert tensor.requires_grad


def test_losses_are_float32_under_autocast() -> None:
    network, data = TinyExperts(), batch(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        target = objective()
        output = network(data.images_BCHW)
        terms = target.step(network, data, 0.0)
    exact = network(data.images_BCHW)
    assert not torch.equal(output.logits_BK, exact.logits_BK)  # autocast did reach the network
    assert terms.total.dtype == torch.float32
    terms.total.backward()
    unrounded = objective().step(TinyExperts(), data, 0.0)
    assert terms.total.item() == pytest.approx(unrounded.total.item(), rel=0.02)
    target.after_step(network)
    assert target.state_dict()["queue.embeddings"].dtype == torch.float32


class _Replay(nn.Module):
    """Answers every batch with one recorded output."""

    def __init__(self, output: SEMCOutput) -> None:
        super().__init__()
        self.output = output

    def forward(self, images_BCHW: torch.Tensor) -> SEMCOutput:
        return self.output


@pytest.mark.parametrize("mc_loss", ["supcon_selfcon", "gpaco"])
def test_autocast_reaches_the_network_but_not_the_losses(mc_loss: str) -> None:
    balance = {} if mc_loss == "supcon_selfcon" else {"expert_ce_weight": 0.0, "importance_weight": 0.0}
    data = batch(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        replay = _Replay(TinyExperts()(data.images_BCHW))
        inside = objective(mc_loss=mc_loss, **balance).step(replay, data, 0.0)
    outside = objective(mc_loss=mc_loss, **balance).step(replay, data, 0.0)
    assert torch.equal(inside.total, outside.total)


def test_one_expert_has_nothing_to_balance() -> None:
    network = TinyExperts(experts=1).double()
    terms = objective().step(network, batch(), 0.0).terms
    assert terms.keys() == {"moe", "alpha", "mc", "sup", "self", "queue_fill", "key_age"}
    three = objective().step(TinyExperts().double(), batch(), 0.0).terms
    assert three.keys() - terms.keys() == {"expert_ce", "importance"}


def test_counts_must_match_the_studys_classes() -> None:
    with pytest.raises(SemcError) as refused:
        objective(counts=(1, 2))
    assert refused.value.code is ExitCode.LABEL_UNKNOWN
