"""A round is a function of (weights, state before): replays are bit-equal, foreign weights change nothing."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save
from torch import Tensor

from client.outbox import REPLIES
from client.progress import Progress
from client.round_log import read_rounds
from client.round_update import RoundUpdate
from client.training_round import SiteTrainer
from semc.checkpoint import load_state, saved_states
from semc.config import SiteConfig, StudyConfig, parse_study
from semc.exit_codes import ExitCode, SemcError
from semc.models import build_model
from semc.parameter_exchange import split_parameters
from semc.protocol import (
    EXPERT_USE,
    METRIC_NAMES,
    NUM_EXAMPLES,
    TEST_CONFUSION,
    TRAIN_LOSS,
    TRAIN_STEPS,
    VALIDATION_CONFUSION,
)
from tests.client.small_study import STUDY_TEXT

STUDY = parse_study(STUDY_TEXT)
RESNET18 = {"model.backbone": "resnet18"}
FIRST = split_parameters(build_model(STUDY), "silo").shared


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def counts(update: RoundUpdate) -> dict[str, object]:
    """Return the metrics without the one that measures time."""
    return {name: value for name, value in update.metrics.items() if name != "train-seconds"}


def forget_replies(site: SiteConfig, study: StudyConfig) -> None:
    """Make the site train a round again that it would only send again."""
    shutil.rmtree(site.state_directory / study.digest()[:16] / REPLIES)


def saved(site: SiteConfig, study: StudyConfig, round_number: int) -> dict[str, Tensor]:
    folder = site.state_directory / study.digest()[:16] / f"round-{round_number:05d}"
    return load_state(folder)[0]


def test_a_site_takes_weights_from_its_own_folder_only(site: SiteConfig, tmp_path: Path) -> None:
    content = save(torchvision.models.resnet18(weights=None).state_dict())
    named = {"model.weights": "w.safetensors", "model.weights_sha256": hashlib.sha256(content).hexdigest()}
    study = parse_study(STUDY_TEXT, {**RESNET18, **named})
    with pytest.raises(SemcError) as caught:
        SiteTrainer(site, study)
    assert caught.value.code is ExitCode.WEIGHTS_INVALID
    (tmp_path / "w.safetensors").write_bytes(content)
    SiteTrainer(site.model_copy(update={"weights_directory": tmp_path}), study)


def test_a_replayed_round_is_bit_equal_in_the_same_process_and_in_a_new_one(site: SiteConfig) -> None:
    trainer = SiteTrainer(site, STUDY)
    one = trainer.run_round(1, FIRST)
    two = trainer.run_round(2, one.shared)
    left_behind = saved(site, STUDY, 2)
    assert not same(one.shared, FIRST)
    for again in (trainer, SiteTrainer(site, STUDY)):
        forget_replies(site, STUDY)
        replayed = again.run_round(2, one.shared)
        assert same(replayed.shared, two.shared)
        assert counts(replayed) == counts(two)
        assert same(saved(site, STUDY, 2), left_behind)


def test_every_round_a_coordinator_may_fall_back_to_is_trained_again_bit_equal_and_earlier_ones_are_refused(
    site: SiteConfig,
) -> None:
    """With the default it keeps checkpoints of three rounds; this site has answered the round after them."""
    study = parse_study(STUDY_TEXT, {"federation.rounds": 5})
    trainer = SiteTrainer(site, study)
    weights, states = [FIRST], [{}]
    for number in range(1, 6):
        weights.append(trainer.run_round(number, weights[-1]).shared)
        states.append(saved(site, study, number))
    folder = site.state_directory / study.digest()[:16]
    with pytest.raises(SemcError, match="oldest state kept here is that after round 2") as caught:
        trainer.run_round(2, weights[1])
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID
    assert same(saved(site, study, 5), states[5]), "nothing was trained, nothing forgotten"
    assert [path.name[-1] for path in saved_states(folder, "round-")] == ["2", "3", "4", "5"]
    forget_replies(site, study)
    again = SiteTrainer(site, study)
    for number in (3, 4, 5):
        assert same(again.run_round(number, weights[number - 1]).shared, weights[number])
        assert same(saved(site, study, number), states[number])


def test_without_its_earlier_states_a_round_would_be_another_one(site: SiteConfig) -> None:
    """The control: what the refusal protects from."""
    trainer = SiteTrainer(site, STUDY)
    one = trainer.run_round(1, FIRST)
    two = trainer.run_round(2, one.shared)
    shutil.rmtree(site.state_directory)
    trainer.run_round(2, one.shared)
    forget_replies(site, STUDY)
    joined = SiteTrainer(site, STUDY).run_round(2, one.shared)
    assert not same(joined.shared, two.shared), "statistics, queue and momentum were fresh"


def test_what_the_process_did_in_between_does_not_matter(site: SiteConfig, tmp_path: Path) -> None:
    trainer = SiteTrainer(site, STUDY)
    one = trainer.run_round(1, FIRST)
    foreign = {name: torch.full_like(tensor, 0.01) for name, tensor in FIRST.items()}
    trainer.evaluate(foreign, 1)
    torch.manual_seed(99)
    torch.rand(7)
    trainer.run_round(2, foreign)
    disturbed = trainer.run_round(2, one.shared)
    fresh = SiteTrainer(site.model_copy(update={"state_directory": tmp_path / "other"}), STUDY)
    quiet = fresh.run_round(2, fresh.run_round(1, FIRST).shared)
    assert same(disturbed.shared, quiet.shared)
    assert counts(disturbed) == counts(quiet)


@pytest.mark.parametrize("statistics", ["running", "reestimated"])
def test_local_state_is_bit_identical_after_foreign_weights_came_and_were_only_evaluated(
    site: SiteConfig, statistics: str
) -> None:
    study = parse_study(STUDY_TEXT, {"federation.bn_statistics": statistics})
    trainer = SiteTrainer(site, study)
    trainer.run_round(1, FIRST)
    before = saved(site, study, 1)
    foreign = {name: torch.randn_like(tensor) for name, tensor in FIRST.items()}
    trainer.evaluate(foreign, 1)
    assert same(saved(site, study, 1), before)
    assert [name for name in before if name.startswith("objective/")], "the queue is part of what stays"
    if statistics == "running":
        after = split_parameters(trainer._network, "silo").local
        kept = {name: tensor for name, tensor in before.items() if name.startswith("network/")}
        assert {f"network/{name}" for name in after} == kept.keys()
        assert all(torch.equal(kept[f"network/{name}"], tensor) for name, tensor in after.items())


@pytest.mark.parametrize("policy", ["clear", "keep", "refresh"])
def test_every_queue_policy_replays_bit_for_bit_and_its_drift_stays_at_the_site(
    site: SiteConfig, policy: str
) -> None:
    study = parse_study(STUDY_TEXT, {"objective.queue_on_update": policy})
    trainer = SiteTrainer(site, study)
    one = trainer.run_round(1, FIRST)
    pushed = saved(site, study, 1)["objective/queue.ids"]
    assert set(pushed[pushed >= 0].tolist()) <= {row.index for row in trainer._data.train}
    two = trainer.run_round(2, one.shared)
    left_behind, log = saved(site, study, 2), read_rounds(trainer._state.folder)
    valid = int(left_behind["objective/queue.valid"].sum())
    assert valid == 2 * 4 * (1 if policy == "clear" else 2), "two steps of four images, one key each"
    assert [entry.round for entry in log] == [1, 2]
    assert "queue_drift_cosine" not in log[0].terms, "the first round has no old keys"
    assert ("queue_drift_cosine" in log[1].terms) == (policy != "clear")
    if policy != "clear":
        assert -1 <= log[1].terms["queue_drift_cosine"] < 1
    assert two.metrics.keys() <= METRIC_NAMES
    assert not any("queue" in name or "drift" in name for name in (*two.metrics, *two.shared))
    trainer.evaluate(one.shared, 1)
    for again in (trainer, SiteTrainer(site, study)):
        forget_replies(site, study)
        replayed = again.run_round(2, one.shared)
        assert same(replayed.shared, two.shared)
        assert counts(replayed) == counts(two)
        assert same(saved(site, study, 2), left_behind)
        assert read_rounds(trainer._state.folder) == log
    forget_replies(site, study)
    unjudged = SiteTrainer(site, study).run_round(2, one.shared, judge_incoming=False)
    assert same(unjudged.shared, two.shared)


def test_state_and_update_share_nothing(site: SiteConfig) -> None:
    update = SiteTrainer(site, STUDY).run_round(1, FIRST)
    assert update.shared.keys() == FIRST.keys()
    assert not any("running_" in name or "num_batches" in name for name in update.shared)
    local = saved(site, STUDY, 1)
    assert any("running_mean" in name for name in local)
    assert any(name.startswith("optimiser/") for name in local)
    assert not {name.removeprefix("network/") for name in local if name.startswith("network/")} & FIRST.keys()


def test_what_a_round_reports(site: SiteConfig) -> None:
    trainer = SiteTrainer(site, STUDY)
    told: list[Progress] = []
    first = trainer.run_round(1, FIRST, told.append).metrics
    assert VALIDATION_CONFUSION not in first, "no batch-norm statistics before the first round"
    second = trainer.run_round(2, FIRST, told.append).metrics
    assert second.keys() <= METRIC_NAMES
    assert second[NUM_EXAMPLES] == first[NUM_EXAMPLES] == len(trainer._data.train)
    assert second[TRAIN_STEPS] == 2
    assert isinstance(second[TRAIN_LOSS], float)
    for name, rows in (
        (VALIDATION_CONFUSION, trainer._data.validation),
        (TEST_CONFUSION, trainer._data.test),
    ):
        matrix = second[name]
        assert isinstance(matrix, list)
        assert (len(matrix), sum(matrix)) == (9, len(rows))
    use = second[EXPERT_USE]
    assert isinstance(use, list)
    assert sum(use) == pytest.approx(1, abs=1e-5)
    training = [item for item in told if item.phase == "training" and item.round_number == 2]
    assert [item.done for item in training] == [0, 1, 2]
    assert training[-1].loss == second[TRAIN_LOSS]


def test_the_counts_are_those_of_the_incoming_weights(site: SiteConfig) -> None:
    trainer = SiteTrainer(site, STUDY)
    one = trainer.run_round(1, FIRST)
    reported = trainer.run_round(2, one.shared).metrics
    measured = SiteTrainer(site, STUDY).evaluate(one.shared, 1)
    assert measured[TEST_CONFUSION] == reported[TEST_CONFUSION]
    assert measured[VALIDATION_CONFUSION] == reported[VALIDATION_CONFUSION]


def test_incoming_weights_are_judged_as_often_as_the_study_says_and_train_alike(site: SiteConfig) -> None:
    def run(every: int) -> list[RoundUpdate]:
        study = parse_study(STUDY_TEXT, {"federation.rounds": 4, "federation.evaluate_every": every})
        trainer, shared, updates = SiteTrainer(site, study), FIRST, []
        for number in (1, 2, 3, 4):
            updates.append(trainer.run_round(number, shared))
            shared = updates[-1].shared
        return updates

    always, seldom = run(1), run(2)
    assert [TEST_CONFUSION in update.metrics for update in always] == [False, True, True, True]
    assert [TEST_CONFUSION in update.metrics for update in seldom] == [False, False, True, False]
    assert all(same(one.shared, other.shared) for one, other in zip(always, seldom, strict=True))
    assert seldom[2].metrics[TEST_CONFUSION] == always[2].metrics[TEST_CONFUSION]


def test_a_site_that_missed_rounds_starts_from_its_newest_state(site: SiteConfig) -> None:
    study = parse_study(STUDY_TEXT, {"federation.rounds": 6})
    trainer = SiteTrainer(site, study)
    one = trainer.run_round(1, FIRST)
    late = trainer.run_round(5, one.shared)
    forget_replies(site, study)
    assert same(late.shared, SiteTrainer(site, study).run_round(5, one.shared).shared)
    folder = site.state_directory / study.digest()[:16]
    assert [path.name for path in saved_states(folder, "round-")] == ["round-00001", "round-00005"]


@pytest.mark.parametrize("bn", ["silo", "fedbn", "average"])
def test_every_batch_norm_mode_trains_and_keeps_its_own(site: SiteConfig, bn: str) -> None:
    study = parse_study(STUDY_TEXT, {"federation.bn": bn, "name": f"small-{bn}"})
    shared = split_parameters(build_model(study), study.federation.bn).shared
    trainer = SiteTrainer(site, study)
    update = trainer.run_round(1, shared)
    assert update.shared.keys() == shared.keys()
    assert set(trainer.shared_shapes) == set(shared)
    local = {name for name in saved(site, study, 1) if name.startswith("network/")}
    assert any("running_var" in name for name in local) == (bn != "average")


def test_epochs_instead_of_steps(site: SiteConfig) -> None:
    study = parse_study(STUDY_TEXT, {"training.local_steps": None, "training.local_epochs": 1})
    trainer = SiteTrainer(site, study)
    update = trainer.run_round(1, FIRST)
    expected = -(-len(trainer._data.train) // 4) - (len(trainer._data.train) % 4 == 1)
    assert update.metrics[TRAIN_STEPS] == expected


def test_weights_of_another_network_are_refused_and_leave_no_state(site: SiteConfig) -> None:
    trainer = SiteTrainer(site, STUDY)
    foreign = dict(list(FIRST.items())[1:])
    with pytest.raises(SemcError) as caught:
        trainer.run_round(1, foreign)
    assert caught.value.code is ExitCode.STUDY_MISMATCH
    assert not (site.state_directory / STUDY.digest()[:16]).exists()


def test_a_diverging_round_leaves_no_state(site: SiteConfig) -> None:
    trainer = SiteTrainer(site, STUDY)
    poisoned = {name: torch.full_like(tensor, 1e30) for name, tensor in FIRST.items()}
    with pytest.raises(SemcError) as caught:
        trainer.run_round(1, poisoned)
    assert caught.value.code is ExitCode.RUN_FAILED
    assert not (site.state_directory / STUDY.digest()[:16]).exists()


def test_a_missing_gpu_is_told(site: SiteConfig) -> None:
    with pytest.raises(SemcError) as caught:
        SiteTrainer(site.model_copy(update={"device": "cuda:63"}), STUDY)
    assert caught.value.code is ExitCode.DEVICE
