"""Replies that were made are found again, by round and by the weights they answer, metrics included to the last bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from client.outbox import KEPT_PRIVATE, KEPT_UNPROTECTED, OUTBOX, REPLIES, Outbox
from client.round_update import MetricValue, RoundUpdate

HEAD = "c" * 64
METRICS: dict[str, MetricValue] = {
    "num-examples": 12,
    "train-loss": 0.1 + 0.2,
    "train-seconds": 3.0,
    "test-confusion": [1, 0, 0, 4],
    "expert-use": [1 / 3, 2 / 3],
}


def keep(
    outbox: Outbox, round_number: int, incoming: str, metrics: dict[str, MetricValue] | None = None
) -> None:
    shared = {"head.weight": torch.full((2,), float(round_number))}
    outbox.keep(round_number, incoming, RoundUpdate(shared, metrics or {}, HEAD))


def test_a_reply_is_found_for_its_own_round_and_weights_alone(tmp_path: Path) -> None:
    keep(Outbox(tmp_path, private=True), 1, "a" * 64)
    again = Outbox(tmp_path, private=True)
    found = again.find(1, "a" * 64)
    assert found is not None
    assert found.shared["head.weight"].tolist() == [1.0, 1.0]
    assert (found.ledger_head, found.metrics) == (HEAD, {})
    assert again.find(1, "b" * 64) is None
    assert again.find(2, "a" * 64) is None


def test_metrics_come_back_exactly(tmp_path: Path) -> None:
    keep(Outbox(tmp_path, private=False), 1, "a" * 64, METRICS)
    found = Outbox(tmp_path, private=False).find(1, "a" * 64)
    assert found is not None
    assert found.metrics == METRICS
    for name, value in METRICS.items():
        other = found.metrics[name]
        assert type(other) is type(value)
        if isinstance(value, list) and isinstance(other, list):
            assert [type(item) for item in other] == [type(item) for item in value]


@pytest.mark.parametrize(("private", "kept"), [(True, KEPT_PRIVATE), (False, KEPT_UNPROTECTED)])
def test_a_study_that_begins_again_keeps_its_new_first_reply(
    tmp_path: Path, private: bool, kept: int
) -> None:
    outbox = Outbox(tmp_path, private=private)
    last = kept + 3
    for number in range(1, last + 1):
        keep(outbox, number, "a" * 64)
    found = [number for number in range(1, last + 1) if outbox.find(number, "a" * 64)]
    assert found == list(range(last - kept + 1, last + 1))
    keep(outbox, 1, "b" * 64)
    assert outbox.find(1, "b" * 64) is not None, "it was made a moment ago"
    assert all(outbox.find(number, "a" * 64) is None for number in range(2, last + 1))
    keep(outbox, 2, "b" * 64)
    assert outbox.find(1, "b" * 64) is not None
    assert outbox.find(2, "b" * 64) is not None


def test_whoever_makes_a_ledger_can_tell_private_replies_from_others(tmp_path: Path) -> None:
    keep(Outbox(tmp_path, private=False), 1, "a" * 64)
    assert (tmp_path / REPLIES).is_dir()
    assert not (tmp_path / OUTBOX).exists()
