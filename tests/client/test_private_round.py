"""A private round: the ledger before the data, nothing of training in the answer, replays free, recomputing charged."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from client import outbound
from client.privacy_gate import ledger_place
from client.private_round import PrivateSiteTrainer
from client.refusal import RefusalError, refusal_of
from client.site import WarmSite
from client.training_round import SiteTrainer
from semc.config import SiteConfig, StudyConfig, load_policy, parse_study
from semc.exit_codes import ExitCode, SemcError
from semc.models import build_model
from semc.parameter_exchange import split_parameters
from semc.privacy.ledger import Ledger, Reservation
from semc.privacy.limits import effective, mechanism_of, plan_cost
from semc.protocol import ARRAYS, CONFIG, DISCLOSED_NAMES, LEDGER_HEAD, RefusalCode
from tests.client.opened_files import opened_in
from tests.client.private_site import PRIVATE_TEXT, private_site
from tests.client.small_study import STUDY_TEXT

STUDY = parse_study(PRIVATE_TEXT)
FIRST = split_parameters(build_model(STUDY), "frozen").shared


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def charges(site: SiteConfig) -> int:
    return sum(event.kind == "reserve" for event in Ledger(ledger_place(site)).events())


def cost_of(rounds: int, study: StudyConfig = STUDY) -> float:
    return plan_cost(study, rounds)


def test_a_round_changes_the_heads_alone_and_says_nothing_about_training(tmp_path: Path) -> None:
    site = private_site(tmp_path)
    trainer = PrivateSiteTrainer(site, STUDY)
    update = trainer.run_round(1, FIRST)
    heads = {name for name in FIRST if name.startswith(("classifiers.", "gate."))}
    assert update.shared.keys() == heads == trainer.update_shapes.keys()
    assert all(not torch.equal(update.shared[name], FIRST[name]) for name in heads)
    assert update.metrics == {}
    content = outbound.update_content(update, STUDY, trainer.update_shapes)
    assert set(content) == {ARRAYS, CONFIG}
    assert dict(content[CONFIG]) == {LEDGER_HEAD: Ledger(ledger_place(site)).head().hash}


def test_a_training_metric_cannot_leave_with_a_private_update(tmp_path: Path) -> None:
    trainer = PrivateSiteTrainer(private_site(tmp_path), STUDY)
    update = trainer.run_round(1, FIRST)
    for broken in (
        type(update)(update.shared, {"train-loss": 0.5}, update.ledger_head),
        type(update)(update.shared, {"num-examples": 18}, update.ledger_head),
        type(update)(update.shared, {}, ""),
        type(update)(
            {**update.shared, "backbone.conv1.weight": FIRST["backbone.conv1.weight"]}, {}, "0" * 64
        ),
    ):
        with pytest.raises(outbound.OutboundError):
            outbound.update_content(broken, STUDY, trainer.update_shapes)
    with pytest.raises(outbound.OutboundError):
        outbound.metrics_content({"test-confusion": [1] * 9}, STUDY)


def test_data_are_opened_only_behind_a_reservation(tmp_path: Path) -> None:
    site = private_site(tmp_path)
    with opened_in(site.data.root) as seen:
        trainer = PrivateSiteTrainer(site, STUDY)
        assert trainer.shared_schema
        assert seen == []
        assert charges(site) == 0
        trainer.run_round(1, FIRST)
        assert seen  # the watch does see what a round opens
    assert charges(site) == 1


def test_after_a_refusal_data_are_never_opened_and_the_answer_is_always_the_same(tmp_path: Path) -> None:
    answers = []
    for place, patients in (("few", 4), ("many", 9)):
        site = private_site(tmp_path / place, epsilon_total=cost_of(1) * 0.99)
        for image in sorted((tmp_path / place / "images").rglob("*.png"))[patients * 3 :]:
            image.unlink()
        trainer = PrivateSiteTrainer(site, STUDY)
        with opened_in(site.data.root) as seen:
            for ask in (
                lambda trainer=trainer: trainer.run_round(1, FIRST),
                lambda trainer=trainer: trainer.run_round(2, FIRST),
                lambda trainer=trainer: trainer.evaluate(FIRST, 3),
            ):
                with pytest.raises(SemcError) as caught:
                    ask()
                assert caught.value.code is ExitCode.BUDGET_REFUSED
                answers.append(refusal_of(caught.value))
            assert seen == []
    assert set(answers) == {RefusalCode.BUDGET}


def test_a_round_beyond_the_budget_is_refused_and_the_one_before_is_not(tmp_path: Path) -> None:
    trainer = PrivateSiteTrainer(private_site(tmp_path, epsilon_total=cost_of(2) * 0.99), STUDY)
    trainer.run_round(1, FIRST)
    with pytest.raises(SemcError) as caught:
        trainer.run_round(2, FIRST)
    assert caught.value.code is ExitCode.BUDGET_REFUSED


def test_a_replayed_round_is_free_and_a_recomputed_one_is_charged(tmp_path: Path) -> None:
    site = private_site(tmp_path)
    one = PrivateSiteTrainer(site, STUDY).run_round(1, FIRST)
    again = PrivateSiteTrainer(site, STUDY).run_round(1, FIRST)
    assert same(one.shared, again.shared)
    assert one.ledger_head == again.ledger_head
    assert charges(site) == 1
    shutil.rmtree(site.state_directory / STUDY.digest()[:16] / "outbox")
    recomputed = PrivateSiteTrainer(site, STUDY).run_round(1, FIRST)
    assert not same(one.shared, recomputed.shared)  # other patients, other noise: another release
    assert charges(site) == 2
    other = {**FIRST, "gate.router.bias": FIRST["gate.router.bias"] + 1}
    PrivateSiteTrainer(site, STUDY).run_round(1, other)
    assert charges(site) == 3


def test_a_site_without_its_earlier_states_refuses_before_anything_is_charged(tmp_path: Path) -> None:
    site = private_site(tmp_path)
    for number in (1, 2):
        PrivateSiteTrainer(site, STUDY).run_round(number, FIRST)
    folder = site.state_directory / STUDY.digest()[:16]
    shutil.rmtree(folder / "outbox")
    shutil.move(folder / "round-00001", tmp_path / "round-00001")
    with opened_in(site.data.root) as seen, pytest.raises(SemcError, match="oldest state kept") as caught:
        PrivateSiteTrainer(site, STUDY).run_round(2, FIRST)
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID
    assert seen == []
    assert charges(site) == 2
    shutil.move(tmp_path / "round-00001", folder / "round-00001")
    PrivateSiteTrainer(site, STUDY).run_round(2, FIRST)
    assert charges(site) == 3, "the control: with the state it is trained, and charged"


def test_a_crash_in_the_round_is_not_refunded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = private_site(tmp_path)

    def fail(*_args: object, **_more: object) -> None:
        raise KeyError("patient Jane Doe")

    with monkeypatch.context() as patch:
        patch.setattr("semc.training.private_trainer.private_step", fail)
        with pytest.raises(RefusalError) as caught:
            PrivateSiteTrainer(site, STUDY).run_round(1, FIRST)
    assert caught.value.code is RefusalCode.INTERNAL
    assert "Jane" not in str(caught.value)
    assert charges(site) == 1
    PrivateSiteTrainer(site, STUDY).run_round(1, FIRST)
    assert charges(site) == 2


def test_what_is_wrong_with_the_data_is_not_told_in_this_mode(tmp_path: Path) -> None:
    site = private_site(tmp_path)
    (tmp_path / "images" / "manifest.csv").unlink()
    with pytest.raises(RefusalError) as caught:
        PrivateSiteTrainer(site, STUDY).run_round(1, FIRST)
    assert refusal_of(caught.value) is RefusalCode.INTERNAL
    # in mode none the same folder is answered with the reason's own code
    with pytest.raises(SemcError) as told:
        SiteTrainer(site, parse_study(STUDY_TEXT))
    assert refusal_of(told.value) is RefusalCode.DATA


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ledger": False}, ExitCode.LEDGER_INVALID),
        ({"modes": ["none"]}, ExitCode.POLICY_REFUSED),
        ({"budget": None}, ExitCode.POLICY_REFUSED),
        ({"min_patients": 7}, ExitCode.POLICY_REFUSED),
        (
            {"budget": {"epsilon_total": 8.0, "delta": 1e-3, "min_noise_multiplier": 5.0}},
            ExitCode.POLICY_REFUSED,
        ),
    ],
)
def test_without_ledger_or_against_the_policy_nothing_begins(
    tmp_path: Path, change: dict[str, object], code: ExitCode
) -> None:
    site = private_site(tmp_path, **change)  # type: ignore[arg-type]
    with opened_in(site.data.root) as seen, pytest.raises(SemcError) as caught:
        PrivateSiteTrainer(site, STUDY)
    assert caught.value.code is code
    assert seen == []


def test_rows_without_patients_and_missing_policies_are_refused(tmp_path: Path) -> None:
    site = private_site(tmp_path)
    open_site = site.model_copy(update={"data": site.data.model_copy(update={"allow_ungrouped": True})})
    with pytest.raises(SemcError, match="no patient can be protected"):
        PrivateSiteTrainer(open_site, STUDY)
    site.policy.unlink()
    with pytest.raises(SemcError, match="no policy file"):
        PrivateSiteTrainer(site, STUDY)


def test_the_plain_trainer_does_not_take_a_private_study(tmp_path: Path) -> None:
    site = private_site(tmp_path)
    with pytest.raises(ValueError, match="PrivateSiteTrainer"):
        SiteTrainer(site, STUDY)
    assert isinstance(WarmSite(tmp_path / "site.yaml").trainer(STUDY), PrivateSiteTrainer)


def test_two_runs_with_one_seed_differ_and_no_secret_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    keys: list[bytes] = []

    def recorded(size: int, draw: Callable[[int], bytes] = os.urandom) -> bytes:
        keys.append(draw(size))
        return keys[-1]

    monkeypatch.setattr(os, "urandom", recorded)
    updates = []
    for place in ("one", "two"):
        site = private_site(tmp_path / place)
        updates.append(PrivateSiteTrainer(site, STUDY).run_round(1, FIRST).shared)
    assert not same(updates[0], updates[1])
    secrets = [key for key in keys if len(key) == 32]
    assert len(secrets) >= 2

    def found() -> int:
        kept = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
        kept += [caplog.text.encode()]
        return sum(key in text or key.hex().encode() in text for key in secrets for text in kept)

    assert found() == 0
    (tmp_path / "one" / "leak.txt").write_text(secrets[0].hex())  # the control: a kept key would be seen
    assert found() == 1


def test_the_last_weights_are_measured_once_with_rates_only(tmp_path: Path) -> None:
    site = private_site(tmp_path)
    trainer = PrivateSiteTrainer(site, STUDY)
    trainer.run_round(1, FIRST)
    answer = trainer.evaluate(FIRST, 3)
    assert set(answer) <= DISCLOSED_NAMES
    kept = json.loads((site.state_directory / STUDY.digest()[:16] / "evaluation.json").read_text())
    assert kept["metrics"] == answer
    kept["metrics"]["test-accuracy"] = 0.25  # what is kept is what is answered, whatever the data are by now
    (site.state_directory / STUDY.digest()[:16] / "evaluation.json").write_text(json.dumps(kept))
    assert trainer.evaluate(FIRST, 3)["test-accuracy"] == 0.25
    other = {**FIRST, "gate.router.bias": FIRST["gate.router.bias"] + 1}
    with opened_in(site.data.root) as seen:
        assert PrivateSiteTrainer(site, STUDY).evaluate(other, 3) == {}
    assert seen == []


def refused_evaluation(site: SiteConfig, study: StudyConfig = STUDY) -> ExitCode:
    with opened_in(site.data.root) as seen, pytest.raises(SemcError) as caught:
        PrivateSiteTrainer(site, study).evaluate(FIRST, 3)
    assert seen == []
    return caught.value.code


def test_a_study_that_was_not_trained_here_gets_no_answer(tmp_path: Path) -> None:
    site = private_site(tmp_path)
    assert refused_evaluation(site) is ExitCode.BUDGET_REFUSED
    reserved = Ledger(ledger_place(site)).reserve(
        Reservation(STUDY.digest(), 1, "1" * 64, mechanism_of(STUDY)),
        effective(STUDY, load_policy(site.policy)),
    )
    assert refused_evaluation(site) is ExitCode.BUDGET_REFUSED  # reserved, but nothing came of it
    Ledger(ledger_place(site)).commit(reserved.seq, "2" * 64)
    assert PrivateSiteTrainer(site, STUDY).evaluate(FIRST, 3)


def test_answers_are_counted_over_all_studies(tmp_path: Path) -> None:
    rules = {"min_cell": 5, "min_evaluation_patients": 5, "max_evaluations": 2}
    site = private_site(tmp_path, disclosure=rules)
    for seed in (1, 2, 3):
        study = parse_study(PRIVATE_TEXT, {"seed": seed})
        trainer = PrivateSiteTrainer(site, study)
        trainer.run_round(1, FIRST)
        if seed < 3:
            trainer.evaluate(FIRST, 3)
            trainer.evaluate(FIRST, 3)  # the same question is the same answer
        else:
            assert refused_evaluation(site, study) is ExitCode.BUDGET_REFUSED


def test_a_closed_ledger_and_unprotected_studies_end_evaluations_too(tmp_path: Path) -> None:
    for place, end, code in (
        ("closed", lambda ledger: ledger.close("the study programme is over"), ExitCode.LEDGER_INVALID),
        ("unprotected", lambda ledger: ledger.note_unprotected("a" * 64), ExitCode.POLICY_REFUSED),
    ):
        site = private_site(tmp_path / place)
        PrivateSiteTrainer(site, STUDY).run_round(1, FIRST)
        end(Ledger(ledger_place(site)))
        assert refused_evaluation(site) is code
        with opened_in(site.data.root) as seen, pytest.raises(SemcError) as caught:
            PrivateSiteTrainer(site, STUDY).run_round(2, FIRST)
        assert caught.value.code is code
        assert seen == []


def test_the_reply_bears_the_head_of_its_own_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = private_site(tmp_path)
    trainer = PrivateSiteTrainer(site, STUDY)
    commit = Ledger.commit

    def interrupted(ledger: Ledger, seq: int, outgoing: str) -> str:
        head = commit(ledger, seq, outgoing)
        Ledger(ledger_place(site)).note_unprotected("a" * 64)  # another program appends at once
        return head

    monkeypatch.setattr(Ledger, "commit", interrupted)
    update = trainer.run_round(1, FIRST)
    assert update.ledger_head != Ledger(ledger_place(site)).head().hash
    assert Ledger(ledger_place(site)).contains(update.ledger_head)
