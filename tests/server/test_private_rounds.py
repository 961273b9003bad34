"""The round loop under privacy mode patient_dp: what may come in, what changes, what is remembered of the ledgers.

Every refusal has its control: the same reply under mode none, or the same ledger head for the question it belongs to.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from semc import protocol
from semc.config import StudyConfig
from semc.exit_codes import ExitCode, SemcError
from semc.reporting import StudyResult
from semc.wire import pack
from server.inbound import (
    CheckedReply,
    Expected,
    Question,
    Refusal,
    check_evaluation_reply,
    check_training_reply,
)
from server.ledger_heads import HEADS_FILE, Asked, LedgerHeads
from server.rounds import run_study
from server.run_folder import RunFolder
from server.submit import submit
from tests.server.federation import (
    FAST,
    ScriptedGrid,
    ScriptedSite,
    array_record,
    error_reply,
    metrics_of,
    registry_of,
    set_identity,
    tiny_model,
    tiny_study,
)
from tests.server.private_federation import (
    RATES,
    TRAINED,
    head_of,
    private,
    private_study,
    site_head,
    update_record,
    with_update,
)
from tests.server.test_rounds import final_model

SIZES = {"north": 10, "south": 20, "west": 70}


def _sites(**scripts: Any) -> list[ScriptedSite]:
    return [
        ScriptedSite(name, step=float(step), answer=scripts.get(name, private))
        for step, name in enumerate(SIZES, start=1)
    ]


def _run(
    folder: Path,
    sites: list[ScriptedSite],
    study: StudyConfig | None = None,
    heads: LedgerHeads | None = None,
) -> StudyResult:
    folder.mkdir(exist_ok=True)
    return run_study(
        ScriptedGrid(sites),
        study or private_study(),
        registry_of(SIZES),
        RunFolder(folder),
        model=tiny_model([TRAINED]),
        pace=FAST,
        heads=heads,
    )


# --- the good way -----------------------------------------------------------------------------------------


def test_only_what_sites_train_changes_and_every_site_weighs_the_same(tmp_path: Path) -> None:
    result = _run(tmp_path, _sites())
    before, after = tiny_model().tensors, final_model(tmp_path)
    assert list(after) == sorted(before)
    assert all(torch.equal(after[name], before[name]) for name in before if name != TRAINED)
    torch.testing.assert_close(after[TRAINED], before[TRAINED] + 2 * 2.0)
    assert (result.privacy, result.bn, result.outcome) == ("patient_dp", "frozen", "complete")


def test_sites_receive_the_whole_model_every_round(tmp_path: Path) -> None:
    sites = _sites()
    _run(tmp_path, sites)
    for message in sites[0].received[1:]:
        record = message.content[protocol.ARRAYS]
        assert b"conv.weight" in record[protocol.SHARED_TENSORS].data


def test_the_result_holds_rates_heads_and_no_count(tmp_path: Path) -> None:
    result = _run(tmp_path, _sites())
    assert [site.disclosed.recall for site in result.sites if site.disclosed] == [[0.5, None]] * 3
    assert {site.num_train_examples for site in result.sites} == {None}
    assert all(not entry.validation and not entry.test and not entry.train_loss for entry in result.rounds)
    assert result.rounds[1].ledger_heads == {name: site_head(name, 3, result.digest) for name in SIZES}
    assert StudyResult.model_validate_json(result.model_dump_json()) == result


def test_the_guarantee_is_that_of_the_whole_plan(tmp_path: Path) -> None:
    from semc.privacy.accounting import Mechanism, rdp_epsilon

    study = private_study()
    statement = _run(tmp_path, _sites(), study).guarantee
    assert statement is not None
    assert statement.epsilon == pytest.approx(rdp_epsilon([Mechanism(2.0, 0.1, 10)], 1e-5))
    assert statement.epsilon > rdp_epsilon([Mechanism(2.0, 0.1, 5)], 1e-5), "more than one round"
    assert (statement.steps, statement.num_trained_values) == (10, 2)
    assert statement.epsilon_prv is not None
    assert statement.epsilon_prv < statement.epsilon


def test_a_site_with_too_few_test_patients_is_in_and_has_no_rates(tmp_path: Path) -> None:
    def silent(site: ScriptedSite, message: Message) -> Message:
        if message.metadata.message_type != "evaluate":
            return private(site, message)
        return Message(RecordDict({protocol.METRICS: MetricRecord()}), reply_to=message)

    result = _run(tmp_path, _sites(west=silent))
    assert result.outcome == "complete"
    assert [site.disclosed is None for site in result.sites] == [False, False, True]


# --- what is refused --------------------------------------------------------------------------------------


def _question(kind: str) -> Message:
    set_identity()
    message = Message(RecordDict(), 2, kind)
    message.metadata.__dict__["_message_id"] = "m"
    return message


def _judge(content: RecordDict, kind: str, *, mode: str) -> CheckedReply | Refusal:
    """Check one reply to a question of a mode whose sites send back the one trained tensor."""
    check = check_training_reply if kind == "train" else check_evaluation_reply
    message = _question(kind)
    expected = Expected({TRAINED: (2,)}, "fp32", num_classes=2, private=mode == "patient_dp")
    return check(Message(content, reply_to=message), Question("north", 2, "m", kind), expected)


def _reason(judged: CheckedReply | Refusal) -> str:
    return judged.receipt.reason if isinstance(judged, Refusal) else "in"


ARRAYS = array_record(with_update())
HEAD = ConfigRecord({protocol.LEDGER_HEAD: "a" * 64})
LOSS = MetricRecord({protocol.NUM_EXAMPLES: 10, protocol.TRAIN_LOSS: 0.5})


def _training(**changes: Any) -> RecordDict:
    records = {protocol.ARRAYS: ARRAYS, protocol.CONFIG: HEAD, **changes}
    return RecordDict({name: record for name, record in records.items() if record is not None})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (_training(), "in"),
        (_training(metrics=LOSS), "R_METRICS"),
        (_training(metrics=MetricRecord({protocol.NUM_EXAMPLES: 10})), "R_METRICS"),
        (_training(metrics=MetricRecord(RATES)), "R_METRICS"),
        (_training(metrics=LOSS, config=None), "R_METRICS"),
        (_training(config=None), "R_RECORDS"),
        (_training(config=ConfigRecord({protocol.LEDGER_HEAD: "a" * 64, "patients": 3})), "R_RECORDS"),
        (_training(config=ConfigRecord({protocol.LEDGER_HEAD: "A" * 64})), "R_RECORDS"),
        (_training(config=ConfigRecord({protocol.LEDGER_HEAD: 7})), "R_RECORDS"),
        (_training(arrays=array_record(with_update(conv_weight=torch.ones(2, 3)))), "R_TENSORS"),
        (_training(arrays=array_record(pack({"conv.weight": torch.ones(2, 3)}, "fp32"))), "R_TENSORS"),
    ],
)
def test_a_private_update_is_its_tensors_and_a_head(content: RecordDict, reason: str) -> None:
    assert _reason(_judge(content, "train", mode="patient_dp")) == reason


def test_mode_none_takes_the_training_metrics_that_patient_dp_refuses() -> None:
    assert _reason(_judge(_training(metrics=LOSS, config=None), "train", mode="none")) == "in"
    assert _reason(_judge(_training(), "train", mode="none")) == "R_RECORDS"


CONFUSION = {protocol.NUM_EXAMPLES: 10, protocol.TEST_CONFUSION: [1, 2, 3, 4]}


@pytest.mark.parametrize(
    ("metrics", "reason"),
    [
        (RATES, "in"),
        ({}, "in"),
        (CONFUSION, "R_METRICS"),
        ({**RATES, protocol.NUM_EXAMPLES: 10}, "R_METRICS"),
        ({protocol.TEST_ACCURACY: 0.5}, "R_METRICS"),
        ({**RATES, protocol.TEST_ACCURACY: 1.01}, "R_METRICS"),
        ({**RATES, protocol.TEST_ACCURACY: 0.123}, "R_METRICS"),
        ({**RATES, protocol.TEST_ACCURACY: protocol.SUPPRESSED}, "R_METRICS"),
        ({**RATES, protocol.TEST_MACRO_F1: float("nan")}, "R_METRICS"),
        ({**RATES, protocol.TEST_MACRO_F1: 1}, "R_METRICS"),
        ({**RATES, protocol.TEST_RECALL: [0.5]}, "R_METRICS"),
        ({**RATES, protocol.TEST_RECALL: [0.5, -0.5]}, "R_METRICS"),
        ({**RATES, protocol.TEST_RECALL: 0.5}, "R_METRICS"),
    ],
)
def test_a_private_evaluation_is_four_rates_or_none(metrics: dict[str, Any], reason: str) -> None:
    content = RecordDict({protocol.METRICS: MetricRecord(metrics)})
    assert _reason(_judge(content, "evaluate", mode="patient_dp")) == reason


def test_modes_do_not_take_each_others_metrics() -> None:
    counts, rates = (RecordDict({protocol.METRICS: MetricRecord(values)}) for values in (CONFUSION, RATES))
    assert _reason(_judge(counts, "evaluate", mode="none")) == "in"
    assert _reason(_judge(rates, "evaluate", mode="none")) == "R_METRICS"


def test_a_refused_update_has_no_influence_and_the_site_is_named(tmp_path: Path) -> None:
    def talkative(site: ScriptedSite, message: Message) -> Message:
        reply = private(site, message)
        if message.metadata.message_type == "train":
            reply.content[protocol.METRICS] = metrics_of(site, message)
        return reply

    result = _run(tmp_path, _sites(west=talkative), private_study(rounds=1, quorum=2))
    assert result.rounds[0].reasons == {"west": "R_METRICS"}
    torch.testing.assert_close(final_model(tmp_path)[TRAINED], tiny_model().tensors[TRAINED] + 1.5)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("E_BUDGET", "its privacy budget does not allow the round"),
        ("E_LEDGER", "its privacy ledger cannot be trusted"),
        ("E_POLICY", "its policy does not allow the study"),
    ],
)
def test_a_hospital_that_declines_is_named_with_its_reason_in_words(
    tmp_path: Path, code: str, words: str
) -> None:
    def declines(site: ScriptedSite, message: Message) -> Message:
        return error_reply(message, 2, code)

    result = _run(tmp_path / "a", _sites(west=declines), private_study(rounds=1, quorum=2))
    assert (result.rounds[0].receipts["west"], result.rounds[0].reasons["west"]) == ("declined", code)
    with pytest.raises(SemcError) as caught:
        _run(tmp_path / "b", _sites(west=declines))
    assert f"west declined at train ({code}: {words})" in caught.value.problem


# --- heads of the ledgers ---------------------------------------------------------------------------------


def _with_heads(head: Callable[[ScriptedSite, Message], str]) -> Any:
    def answer(site: ScriptedSite, message: Message) -> Message:
        if message.metadata.message_type != "train":
            return private(site, message)
        return Message(update_record(site, message, head(site, message)), reply_to=message)

    return answer


@pytest.mark.parametrize(
    ("heads", "states"),
    [
        (["a", "b", "c"], ["in", "in", "in"]),
        (["a", "b", "a"], ["in", "in", "refused"]),
        (["a", "a", "b"], ["in", "refused", "in"]),
    ],
)
def test_a_head_given_for_another_round_is_refused(
    tmp_path: Path, heads: list[str], states: list[str]
) -> None:
    answer = _with_heads(lambda site, message: head_of(heads[int(message.metadata.group_id) - 1]))
    result = _run(tmp_path, _sites(west=answer), private_study(rounds=3, quorum=2))
    assert [entry.receipts["west"] for entry in result.rounds] == states
    assert {entry.reasons.get("west", "R_LEDGER") for entry in result.rounds} == {"R_LEDGER"}
    if "refused" in states:
        text = RunFolder(tmp_path).events_file.read_text()
        assert '"site": "west", "state": "refused", "stage": "check", "reason": "R_LEDGER"' in text


def test_a_later_run_knows_the_heads_of_an_earlier_one(tmp_path: Path) -> None:
    heads = LedgerHeads(tmp_path / "home.jsonl")
    same = _with_heads(lambda site, message: head_of("round", message.metadata.group_id))
    _run(tmp_path / "first", _sites(west=same), private_study(), heads)
    again = _run(tmp_path / "again", _sites(west=same), private_study(noise=3.0, quorum=2), heads)
    assert [entry.reasons.get("west") for entry in again.rounds] == ["R_LEDGER", "R_LEDGER"]
    fresh = _run(tmp_path / "fresh", _sites(west=same), private_study(noise=3.0, quorum=2))
    assert fresh.outcome == "complete", "control: without the earlier run's heads nobody notices"


def test_the_same_answer_to_the_same_question_is_no_rollback(tmp_path: Path) -> None:
    """A site answers a repeated study from its outbox: the same update, the same head, no new charge."""
    heads = LedgerHeads(tmp_path / "home.jsonl")
    same = {
        name: _with_heads(lambda site, message: head_of(site.name, message.metadata.group_id))
        for name in SIZES
    }
    for run in ("first", "again"):
        assert _run(tmp_path / run, _sites(**same), None, heads).outcome == "complete"


def test_every_task_carries_the_sites_own_newest_head(tmp_path: Path) -> None:
    sites = _sites()
    digest = _run(tmp_path, sites).digest
    for site in sites:
        carried = [message.content[protocol.CONFIG].get(protocol.LEDGER_HEAD) for message in site.received]
        assert carried == [None, None, site_head(site.name, 2, digest), site_head(site.name, 3, digest)]


def test_mode_none_sends_and_keeps_no_heads(tmp_path: Path) -> None:
    site_list = [ScriptedSite(name) for name in SIZES]
    run_study(
        ScriptedGrid(site_list),
        tiny_study(),
        registry_of(SIZES),
        RunFolder(tmp_path),
        model=tiny_model(),
        pace=FAST,
    )
    assert not (tmp_path / HEADS_FILE).exists()
    assert all(
        protocol.LEDGER_HEAD not in m.content[protocol.CONFIG] for site in site_list for m in site.received
    )


def test_a_damaged_record_of_heads_stops_the_run(tmp_path: Path) -> None:
    file = tmp_path / HEADS_FILE
    assert LedgerHeads(file).accept("north", "a" * 64, Asked("d", 1, "w"))
    file.write_text(file.read_text()[:-9] + "\n")
    with pytest.raises(SemcError) as caught:
        LedgerHeads(file).accept("north", "b" * 64, Asked("d", 2, "w"))
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID


# --- the plan ---------------------------------------------------------------------------------------------


def test_a_plan_above_its_own_epsilon_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    study = private_study(noise=0.5, rounds=100)
    with pytest.raises(SemcError) as caught:
        _run(tmp_path, sites := _sites(), study)
    assert caught.value.code is ExitCode.BUDGET_REFUSED
    assert all(not site.received for site in sites)
    from server.home import Home

    with pytest.raises(SemcError) as caught:
        submit(Home(tmp_path), study)
    assert caught.value.code is ExitCode.BUDGET_REFUSED, "even before it asks whether the coordinator runs"
    with pytest.raises(SemcError) as caught:
        submit(Home(tmp_path), private_study())
    assert caught.value.code is ExitCode.SERVER_UNREACHABLE, (
        "control: a plan within its epsilon gets that far"
    )
