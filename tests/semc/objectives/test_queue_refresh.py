"""Old keys under new weights: slow oracles for which rows stay, what they become and how far they drifted."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import pytest
import torch

from semc.datasets import Batch
from semc.objectives import ImagesOf, MemoryQueue, Objective, build_objective
from semc.objectives.queue_refresh import PROBED_IMAGES, key_drift, refresh_keys
from tests.semc.objectives.tiny_network import TinyExperts, batch, study

COUNTS = (20, 5, 15)


def image(number: int) -> Batch:
    """Return one image, a function of its number alone."""
    one = batch(1, first_id=number)
    return Batch(one.images_BCHW, torch.tensor([number % 3]), one.ids_B, one.groups_B)


def joined(numbers: Iterable[int]) -> Batch:
    parts = [image(number) for number in numbers]
    return Batch(*(torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])))


def archive(missing: frozenset[int] = frozenset(), size: int = 100) -> ImagesOf:
    """Return the site's images in batches of `size`, in the order asked for."""

    def images_of(ids: Sequence[int]) -> Iterable[Batch]:
        known = [number for number in ids if number not in missing]
        return [joined(known[first : first + size]) for first in range(0, len(known), size)]

    return images_of


def objective(**settings: object) -> Objective:
    return build_objective(study(**settings), COUNTS, 40)


def filled(target: Objective, network: TinyExperts, steps: list[list[int]]) -> Objective:
    """Push the keys of some batches; no weight changes."""
    for numbers in steps:
        target.step(network, joined(numbers), 0.0)
        target.after_step(network)
    return target


def other_weights(network: TinyExperts, amount: float = 0.3) -> TinyExperts:
    changed = TinyExperts(experts=len(network.experts)).double()
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in changed.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return changed


def fresh_keys(network: TinyExperts, numbers: list[int]) -> dict[tuple[int, int], torch.Tensor]:
    """Oracle: key of (image, expert after the first), normalised by the batch of all these images."""
    with torch.no_grad():
        embeddings = TinyExperts.forward(network.train(), joined(numbers).images_BCHW).embeddings_NBD
    assert embeddings is not None
    return {
        (number, expert): embeddings[expert, place].float()
        for place, number in enumerate(numbers)
        for expert in range(1, len(embeddings))
    }


def rows(target: Objective) -> list[tuple[int, int, torch.Tensor]]:
    state = {name.removeprefix("queue."): tensor for name, tensor in target.state_dict().items()}
    return [
        (int(state["ids"][slot]), int(state["labels"][slot]), state["embeddings"][slot])
        for slot in range(len(state["ids"]))
        if state["valid"][slot]
    ]


def test_the_newest_half_is_encoded_again_and_the_rest_forgotten() -> None:
    target, network = objective(queue_size=16, queue_on_update="refresh"), TinyExperts().double()
    filled(target, network, [[1, 2, 3, 4], [5, 6, 7], [8, 9, 10]])  # 20 keys, two each: 1-4 are partly gone
    new = other_weights(network)
    target.new_global_weights(new, archive())
    found = rows(target)
    # Newest first, within a push the last first: 10, 9, 8, 7 fill half of 16 slots.
    assert [i for i, _, _ in found] == [7, 7, 8, 8, 9, 9, 10, 10]
    oracle = fresh_keys(new, [10, 9, 8, 7])
    for place, (i, label, key) in enumerate(found):
        assert label == i % 3
        torch.testing.assert_close(key, oracle[i, 1 + place % 2])
    state = target.state_dict()
    assert int(state["queue.valid"].sum()) == 8
    assert bool((state["queue.ids"][~state["queue.valid"]] == -1).all())
    assert bool((state["queue.ages"][state["queue.valid"]] == 0).all())


def test_the_drift_is_the_mean_cosine_of_old_and_new_key_of_image_and_expert() -> None:
    target, network = objective(queue_size=16, queue_on_update="refresh"), TinyExperts().double()
    filled(target, network, [[1, 2, 3, 4], [5, 6, 7], [8, 9, 10]])
    new = other_weights(network)
    old: dict[tuple[int, int], torch.Tensor] = {}
    for numbers in ([5, 6, 7], [8, 9, 10]):
        old |= fresh_keys(network, numbers)
    now = fresh_keys(new, [10, 9, 8, 7])
    cosines = []
    for number in (7, 8, 9, 10):
        for expert in (1, 2):
            a, b = old[number, expert].tolist(), now[number, expert].tolist()
            dot = sum(x * y for x, y in zip(a, b, strict=True))
            cosines.append(dot / math.dist(a, [0] * len(a)) / math.dist(b, [0] * len(b)))
    target.new_global_weights(new, archive())
    terms = target.step(new, joined([11, 12]), 0.0).terms
    assert terms["queue_drift_cosine"] == pytest.approx(sum(cosines) / 8, abs=1e-6)
    assert terms["queue_drift_cosine"] < 0.99
    assert target.step(new, joined([13, 14]), 0.1).terms["queue_drift_cosine"] == terms["queue_drift_cosine"]


@pytest.mark.parametrize("policy", ["refresh", "keep"])
def test_the_same_weights_on_the_same_batch_do_not_drift(policy: str) -> None:
    """Negative control: more change of the weights, less cosine."""
    cosines = []
    for amount in (0.0, 0.1, 0.4):
        target, network = objective(queue_on_update=policy), TinyExperts().double()
        filled(target, network, [[1, 2, 3, 4, 5]])
        network = other_weights(network, amount)
        target.new_global_weights(network, archive())
        cosines.append(target.step(network, joined([6, 7]), 0.0).terms["queue_drift_cosine"])
    assert cosines[0] == pytest.approx(1.0, abs=1e-6)
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[2] < 0.99


@pytest.mark.parametrize("experts", [1, 2, 3, 4])
def test_an_image_met_twice_counts_with_its_newest_keys(experts: int) -> None:
    network = TinyExperts(experts=experts).double()
    model = study().model.model_copy(update={"experts": experts})
    config = study(queue_on_update="refresh").model_copy(update={"model": model})
    target = build_objective(config, COUNTS, 40)
    filled(target, network, [[1, 2, 3], [4, 5], [3, 2, 1]])
    target.new_global_weights(network, archive(size=3))
    keys = max(1, experts - 1)
    assert [i for i, _, _ in rows(target)] == [number for number in (4, 5, 3, 2, 1) for _ in range(keys)]
    # The batch of 1, 2, 3 is the one of their last step, that of 4 and 5 as well: nothing has drifted.
    terms = target.step(network, joined([6, 7]), 0.0).terms
    assert terms["queue_drift_cosine"] == pytest.approx(1.0, abs=1e-6)


def test_keys_of_a_push_cut_off_are_matched_with_the_last_experts() -> None:
    target, network = objective(queue_size=5, queue_on_update="keep"), TinyExperts().double()
    filled(target, network, [[1, 2, 3]])  # six keys, the first expert's of one image did not fit
    assert sorted(i for i, _, _ in rows(target)) == [1, 2, 2, 3, 3]
    target.new_global_weights(network, archive())
    terms = target.step(network, joined([6, 7]), 0.0).terms
    assert terms["queue_drift_cosine"] == pytest.approx(1, abs=1e-6)


def test_a_balanced_queue_keeps_half_of_every_class() -> None:
    target = objective(queue_size=24, queue_balanced=True, queue_on_update="refresh")
    network = TinyExperts().double()
    filled(target, network, [[1, 4, 2], [3, 6], *([30 + 3 * k, 33 + 3 * k] for k in range(6))])
    target.new_global_weights(network, archive())
    labels = [label for _, label, _ in rows(target)]
    assert [labels.count(k) for k in range(3)] == [4, 4, 2], "eight slots a class, class 2 had one image"
    assert {i for i, label, _ in rows(target) if label == 0} == {45, 48}
    assert {i for i, label, _ in rows(target) if label == 1} == {1, 4}


def test_refreshed_rows_are_evicted_oldest_first() -> None:
    target, network = objective(queue_size=16, queue_on_update="refresh"), TinyExperts().double()
    filled(target, network, [[1, 2, 3, 4], [5, 6, 7, 8]])
    target.new_global_weights(network, archive())
    assert [i for i, _, _ in rows(target)] == [5, 5, 6, 6, 7, 7, 8, 8]
    filled(target, network, [[11, 12, 13, 14], [15, 16]])
    assert {i for i, _, _ in rows(target)} == {7, 8, 11, 12, 13, 14, 15, 16}


def test_images_the_site_no_longer_has_leave_the_queue() -> None:
    target, network = objective(queue_on_update="refresh"), TinyExperts().double()
    filled(target, network, [[1, 2, 3, 4]])
    state = target.state_dict()
    target.new_global_weights(network, archive(missing=frozenset({2})))
    assert {i for i, _, _ in rows(target)} == {1, 3, 4}
    for missing in ({1, 2, 3}, {1, 2, 3, 4}):  # one image alone has no batch statistics
        target.load_state_dict(state)
        target.new_global_weights(network, archive(missing=frozenset(missing)))
        assert rows(target) == []
        assert "queue_drift_cosine" not in target.step(network, joined([6, 7]), 0.0).terms


def test_an_empty_queue_and_rows_without_an_image_ask_for_nothing() -> None:
    def nobody(_ids: Sequence[int]) -> Iterable[Batch]:
        raise AssertionError("no image is needed")

    network = TinyExperts().double()
    for start in ("empty", "reference"):
        target = objective(queue_on_update="refresh", queue_init=start)
        target.new_global_weights(network, nobody)
        assert rows(target) == []


@pytest.mark.parametrize("policy", ["refresh", "keep"])
def test_it_is_a_function_of_state_and_weights_and_leaves_the_network_alone(policy: str) -> None:
    target, network = objective(queue_on_update=policy), TinyExperts().double()
    filled(target, network, [[1, 2, 3, 4], [5, 6, 7]])
    state, new = target.state_dict(), other_weights(network)
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    results, terms = [], []
    for seed in (0, 1):
        torch.manual_seed(seed)
        random_state = torch.get_rng_state()
        again = objective(queue_on_update=policy)
        again.load_state_dict(state)
        again.new_global_weights(new.train(), archive())
        assert torch.equal(torch.get_rng_state(), random_state)
        results.append(again.state_dict())
        terms.append(again._update_terms)  # type: ignore[attr-defined]
        again.new_global_weights(new, archive())
    assert terms[0] == terms[1]
    assert terms[0].keys() == {"queue_drift_cosine"}
    for name, tensor in results[0].items():
        assert torch.equal(tensor, results[1][name]), name
        assert torch.equal(tensor, state[name]) or policy == "refresh", name
    assert all(torch.equal(tensor, before[name]) for name, tensor in new.state_dict().items())
    assert all(module.training for module in new.modules())
    assert all(parameter.grad is None for parameter in new.parameters())


def test_without_images_refresh_is_refused_and_keep_measures_nothing() -> None:
    network = TinyExperts().double()
    with pytest.raises(ValueError, match="images"):
        objective(queue_on_update="refresh").new_global_weights(network)
    target = filled(objective(queue_on_update="keep"), network, [[1, 2, 3]])
    target.new_global_weights(network)
    assert "queue_drift_cosine" not in target.step(network, joined([6, 7]), 0.0).terms
    cleared = filled(objective(queue_on_update="clear"), network, [[1, 2, 3]])
    cleared.new_global_weights(network, archive())
    assert "queue_drift_cosine" not in cleared.step(network, joined([6, 7]), 0.0).terms


def test_a_probe_looks_at_few_images() -> None:
    asked: list[int] = []
    queue, network = MemoryQueue(200, 8), TinyExperts().double()
    queue.push(torch.randn(150, 8), torch.zeros(150, dtype=torch.long), torch.arange(150))

    def counted(inner: ImagesOf) -> Callable[[Sequence[int]], Iterable[Batch]]:
        def images_of(ids: Sequence[int]) -> Iterable[Batch]:
            asked.extend(ids)
            return inner(ids)

        return images_of

    key_drift(queue, network, counted(archive()), 1)
    assert asked == list(range(149, -1, -5)), "all ages alike, newest first"
    assert len(asked) <= PROBED_IMAGES
    asked.clear()
    refresh_keys(queue, network, counted(archive()), 1)
    assert asked == list(range(149, 49, -1))


@pytest.mark.parametrize("rings", [1, 3])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_rows_newest_first_equals_a_replay_of_the_pushes(rings: int, size: int) -> None:
    queue, pushed = MemoryQueue(15, 4, num_rings=rings), []
    for step in range(7):
        ids = torch.arange(step * size, (step + 1) * size)
        queue.push(torch.randn(size, 4), ids % 3, ids)
        pushed += ids.tolist()
    slots = queue.rows_newest_first()
    kept = {int(i) for i in queue.ids_Q[queue.valid_Q]}
    if rings == 1:
        assert [int(queue.ids_Q[slot]) for slot in slots] == pushed[::-1][:15]
    for label in range(3):
        own = [int(queue.ids_Q[slot]) for slot in slots if int(queue.labels_Q[slot]) == label]
        assert own == [i for i in pushed[::-1] if i % 3 == label and i in kept]
    assert len(slots) == len(kept)
