"""Replies that were paid for are found again, by round and by the weights they answer."""

from __future__ import annotations

from pathlib import Path

import torch

from client.outbox import KEPT_ROUNDS, Outbox

HEAD = "c" * 64


def keep(outbox: Outbox, round_number: int, incoming: str) -> None:
    outbox.keep(round_number, incoming, {"head.weight": torch.full((2,), float(round_number))}, HEAD)


def test_a_reply_is_found_for_its_own_round_and_weights_alone(tmp_path: Path) -> None:
    keep(Outbox(tmp_path), 1, "a" * 64)
    found = Outbox(tmp_path).find(1, "a" * 64)
    assert found is not None
    assert found.shared["head.weight"].tolist() == [1.0, 1.0]
    assert (found.ledger_head, found.metrics) == (HEAD, {})
    assert Outbox(tmp_path).find(1, "b" * 64) is None
    assert Outbox(tmp_path).find(2, "a" * 64) is None


def test_a_study_that_begins_again_keeps_its_new_first_reply(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    for number in range(1, KEPT_ROUNDS + 4):
        keep(outbox, number, "a" * 64)
    assert [number for number in range(1, KEPT_ROUNDS + 4) if outbox.find(number, "a" * 64)] == [4, 5, 6]
    keep(outbox, 1, "b" * 64)
    assert outbox.find(1, "b" * 64) is not None, "it was paid for a moment ago"
    assert all(outbox.find(number, "a" * 64) is None for number in range(2, KEPT_ROUNDS + 4))
    keep(outbox, 2, "b" * 64)
    assert outbox.find(1, "b" * 64) is not None
    assert outbox.find(2, "b" * 64) is not None
