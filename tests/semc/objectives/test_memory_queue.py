"""The queue against python deques: any size, any batch, any order of pushes."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from semc.exit_codes import ExitCode, SemcError
from semc.objectives import MemoryQueue, queue_capacity

SIZES = [1, 2, 8, 15, 16, 17]


def keys(
    count: int, first_id: int, classes: int = 3, dim: int = 4
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return distinct directions, labels and ids of `count` images numbered from `first_id`."""
    ids = torch.arange(first_id, first_id + count)
    angle = ids.float()
    rows = torch.stack([angle.cos(), angle.sin(), torch.ones(count), (angle * 0.3).sin()], dim=1)[:, :dim]
    return rows, ids * 7 % classes, ids


def content(queue: MemoryQueue) -> list[tuple[int, int, int]]:
    """Return (id, label, age) of the valid rows, oldest first."""
    rows = zip(
        queue.ids_Q.tolist(),
        queue.labels_Q.tolist(),
        queue.ages_Q.tolist(),
        queue.valid_Q.tolist(),
        strict=True,
    )
    return sorted((i, y, age) for i, y, age, valid in rows if valid)


@settings(max_examples=80, deadline=None)
@given(
    capacity=st.sampled_from(SIZES),
    batches=st.lists(st.integers(1, 40), min_size=0, max_size=8),
    classes=st.integers(1, 4),
    balanced=st.booleans(),
)
def test_equals_a_deque_per_ring(capacity: int, batches: list[int], classes: int, balanced: bool) -> None:
    rings = classes if balanced else 1
    slots = max(1, capacity // rings)
    queue = MemoryQueue(capacity, 4, num_rings=rings)
    oracle = [deque[tuple[int, int, int]](maxlen=slots) for _ in range(rings)]
    first = 0
    for step, size in enumerate(batches):
        rows, labels, ids = keys(size, first, classes)
        queue.push(rows, labels, ids)
        for i, y in zip(ids.tolist(), labels.tolist(), strict=True):
            oracle[y if rings > 1 else 0].append((i, y, step))
        first += size
    expected = sorted((i, y, len(batches) - 1 - step) for ring in oracle for i, y, step in ring)
    assert content(queue) == expected
    assert len(queue) == rings * slots
    by_id = dict(zip(queue.ids_Q.tolist(), queue.embeddings_QD, strict=True))
    for i, _, _ in expected:
        direction = keys(1, i)[0][0]
        torch.testing.assert_close(by_id[i], direction / direction.norm())


@pytest.mark.parametrize("capacity", SIZES)
@pytest.mark.parametrize("batch", [1, 3, 16, 35])
def test_rows_have_unit_norm_and_wrap_in_slot_order(capacity: int, batch: int) -> None:
    queue = MemoryQueue(capacity, 4)
    for step in range(7):
        rows, labels, ids = keys(batch, step * batch)
        queue.push(100 * rows, labels, ids)
    norms = queue.embeddings_QD[queue.valid_Q].norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms), rtol=0, atol=1e-6)
    total = 7 * batch
    for slot, stored in enumerate(queue.ids_Q.tolist()):
        newest = max((i for i in range(total) if i % capacity == slot), default=-1)
        assert stored == newest


def test_a_site_keeps_no_more_slots_than_images_but_at_least_the_floor() -> None:
    assert queue_capacity(2048, 5000) == 2048
    assert queue_capacity(2048, 900) == 900
    assert queue_capacity(2048, 40) == 256
    assert queue_capacity(128, 40) == 128
    assert queue_capacity(16, 9000) == 16


def test_stored_rows_are_detached_float32_copies() -> None:
    rows = torch.randn(3, 4, dtype=torch.bfloat16, requires_grad=True)
    queue = MemoryQueue(8, 4)
    queue.push(rows, torch.zeros(3, dtype=torch.long), torch.arange(3))
    assert queue.embeddings_QD.dtype == torch.float32
    assert not queue.embeddings_QD.requires_grad
    before = queue.embeddings_QD.clone()
    with torch.no_grad():
        rows.fill_(9)
    assert torch.equal(queue.embeddings_QD, before)


def test_rows_without_a_direction_are_stored_as_invalid() -> None:
    rows = torch.tensor([[1.0, 0.0], [torch.nan, 0.0], [torch.inf, 1.0], [0.0, 0.0], [0.0, 2.0]])
    queue = MemoryQueue(5, 2)
    queue.push(rows, torch.zeros(5, dtype=torch.long), torch.arange(5))
    assert queue.valid_Q.tolist() == [True, False, False, False, True]
    assert bool(torch.isfinite(queue.embeddings_QD).all())
    queue.push(torch.ones(5, 2), torch.zeros(5, dtype=torch.long), torch.arange(5, 10))
    assert bool(queue.valid_Q.all())


def test_a_frequent_class_does_not_evict_a_rare_one_in_a_balanced_queue() -> None:
    plain, balanced = MemoryQueue(12, 4), MemoryQueue(12, 4, num_rings=3)
    for queue in (plain, balanced):
        rows, _, ids = keys(2, 0)
        queue.push(rows, torch.tensor([2, 2]), ids)
        for step in range(10):
            rows, _, ids = keys(5, 2 + 5 * step)
            queue.push(rows, torch.zeros(5, dtype=torch.long), ids)
    assert 2 not in plain.labels_Q[plain.valid_Q].tolist()
    assert balanced.labels_Q[balanced.valid_Q].tolist() == [0, 0, 0, 0, 2, 2]


def test_clear_forgets_everything() -> None:
    queue, fresh = MemoryQueue(8, 4, num_rings=2), MemoryQueue(8, 4, num_rings=2)
    rows, labels, ids = keys(13, 0, classes=2)
    queue.push(rows, labels, ids)
    queue.clear()
    for name, tensor in queue.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name]), name
    assert queue.mean_age().item() == 0
    assert queue.fill_fraction().item() == 0


def test_state_survives_a_safetensors_file_and_continues_alike(tmp_path: Path) -> None:
    queue = MemoryQueue(15, 4)
    queue.push(*keys(11, 0))
    queue.push(*keys(11, 11))
    save_file(queue.state_dict(), tmp_path / "queue.safetensors")
    restored = MemoryQueue(15, 4)
    restored.load_state_dict(load_file(tmp_path / "queue.safetensors"))
    for other in (queue, restored):
        other.push(*keys(6, 22))
    for name, tensor in queue.state_dict().items():
        assert torch.equal(tensor, restored.state_dict()[name]), name
    assert queue.mean_age().item() == pytest.approx((6 * 0 + 9 * 1) / 15)


def test_saved_state_is_a_copy_and_foreign_states_are_refused() -> None:
    queue = MemoryQueue(8, 4)
    state = queue.state_dict()
    queue.push(*keys(3, 0))
    assert not bool(state["valid"].any())
    good = queue.state_dict()
    for wrong in (
        MemoryQueue(9, 4).state_dict(),
        MemoryQueue(8, 5).state_dict(),
        {k: v for k, v in good.items() if k != "ids"},
        {**good, "extra": torch.zeros(1)},
        {**good, "valid": good["valid"].float()},
        {**good, "heads": torch.tensor([8])},
        {**good, "heads": torch.tensor([-1])},
    ):
        with pytest.raises(SemcError) as refused:
            queue.load_state_dict(wrong)
        assert refused.value.code is ExitCode.CHECKPOINT_INVALID
    assert torch.equal(queue.state_dict()["ids"], good["ids"])


def test_the_reference_start_has_the_released_codes_defects() -> None:
    queue = MemoryQueue(2048, 128)
    queue.fill_like_reference(7, seed=1)
    norms = queue.embeddings_QD.norm(dim=1)
    assert norms.mean().item() == pytest.approx(0.25, abs=0.005)
    assert bool(queue.valid_Q.all())
    assert set(queue.labels_Q.tolist()) == set(range(7))
    again = MemoryQueue(2048, 128)
    again.fill_like_reference(7, seed=1)
    assert torch.equal(queue.embeddings_QD, again.embeddings_QD)


@pytest.mark.parametrize(("capacity", "rings"), [(0, 1), (4, 0)])
def test_a_queue_without_slots_is_refused(capacity: int, rings: int) -> None:
    with pytest.raises(ValueError):
        MemoryQueue(capacity, 4, num_rings=rings)
