"""A message that comes twice is answered without training, if nothing came in between that made the reply untrue."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from client.ledger_making import _unprotected_studies
from client.outbox import REPLIES
from client.progress import Progress
from client.round_update import RoundUpdate
from client.training_round import SiteTrainer
from semc.config import SiteConfig
from tests.client.test_training_round import FIRST, STUDY, same, saved


def replies(site: SiteConfig) -> Path:
    return site.state_directory / STUDY.digest()[:16] / REPLIES


def ask(site: SiteConfig, round_number: int, weights: dict[str, Tensor]) -> tuple[RoundUpdate, int]:
    """Send a message to a new process's trainer; returns its reply and the steps it trained."""
    told: list[Progress] = []
    update = SiteTrainer(site, STUDY).run_round(round_number, weights, told.append)
    return update, sum(item.phase == "training" and item.loss is None for item in told)


def test_a_message_that_comes_twice_is_answered_alike_without_a_step(site: SiteConfig) -> None:
    first, trained = ask(site, 1, FIRST)
    assert trained == 2
    second, _ = ask(site, 2, first.shared)
    for number, weights, sent in ((2, first.shared, second), (1, FIRST, first)):
        left = saved(site, STUDY, 2)
        again, trained = ask(site, number, weights)
        assert trained == 0
        assert same(again.shared, sent.shared)
        assert again.metrics == sent.metrics, "its seconds too: it is the same reply"
        assert same(saved(site, STUDY, 2), left)


def test_other_weights_are_trained(site: SiteConfig) -> None:
    ask(site, 1, FIRST)
    other = {name: tensor * 0.5 for name, tensor in FIRST.items()}
    update, trained = ask(site, 1, other)
    assert trained == 2
    assert not same(update.shared, ask(site, 1, FIRST)[0].shared)


def test_a_reply_whose_state_is_no_longer_the_sites_is_made_again(site: SiteConfig, tmp_path: Path) -> None:
    """Other weights came in between, and their reply could not be kept: the older one must not stand."""
    first, _ = ask(site, 1, FIRST)
    shutil.copytree(replies(site), tmp_path / "older")
    other = {name: tensor * 0.5 for name, tensor in FIRST.items()}
    ask(site, 1, other)
    shutil.rmtree(replies(site))
    shutil.copytree(tmp_path / "older", replies(site))
    left = saved(site, STUDY, 1)
    again, trained = ask(site, 1, FIRST)
    assert trained == 2
    assert same(again.shared, first.shared)
    assert not same(saved(site, STUDY, 1), left), "the state is that of the weights answered last"


def test_a_damaged_reply_is_made_again(site: SiteConfig, caplog: pytest.LogCaptureFixture) -> None:
    first, _ = ask(site, 1, FIRST)
    (tensors,) = replies(site).glob("*/*.safetensors")
    tensors.write_bytes(b"\0" * 64)
    again, trained = ask(site, 1, FIRST)
    assert trained == 2
    assert "made again" in caplog.text
    assert same(again.shared, first.shared)


def test_a_reply_that_cannot_be_kept_is_sent(site: SiteConfig, caplog: pytest.LogCaptureFixture) -> None:
    replies(site).parent.mkdir(parents=True)
    replies(site).write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        update, trained = ask(site, 1, FIRST)
    assert trained == 2
    assert all(torch.isfinite(tensor).all() for tensor in update.shared.values())
    assert "sent, but not kept" in caplog.text


def test_a_study_with_kept_replies_still_counts_as_unprotected(site: SiteConfig) -> None:
    ask(site, 1, FIRST)
    assert replies(site).is_dir()
    assert _unprotected_studies(site.state_directory) == [STUDY.digest()[:16]]
