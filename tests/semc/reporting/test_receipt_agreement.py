"""A result says of its rounds what was signed, or it is refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from semc.exit_codes import ExitCode, SemcError
from semc.reporting import RoundResult, StudyResult
from semc.reporting.receipt import SignedReceipt, verify_chain
from semc.reporting.receipt_agreement import check_result
from tests.semc.reporting.made_receipts import (
    DROPPED,
    LATE,
    OTHER_KEY,
    RUN,
    chain,
    public,
    signed,
    signed_result,
    weights,
)
from tests.semc.reporting.study_result import SITES

SUBSET = chain(3, {2: {"south": DROPPED}})


def refused(result: StudyResult, key: str = "", run: str = RUN, known: Sequence[SignedReceipt] = ()) -> str:
    """Return why a result is refused; empty where it is accepted."""
    try:
        check_result(result, key or public(), run, known)
    except SemcError as error:
        return error.problem if error.code is ExitCode.CHECKPOINT_INVALID else error.line()
    return ""


def with_round(result: StudyResult, number: int, **changes: Any) -> StudyResult:
    rounds: list[RoundResult] = list(result.rounds)
    rounds[number - 1] = rounds[number - 1].model_copy(update=changes)
    return result.model_copy(update={"rounds": rounds})


@pytest.mark.parametrize(
    ("receipts", "outcome"),
    [
        (chain(), "complete"),
        (SUBSET, "complete_on_subset"),
        (chain(3, {4: {"west": LATE}}), "complete_on_subset"),
        (chain(2, closed=False), "quorum_lost"),
        ([signed(chain(1, closed=False)[0], outgoing_sha256="")], "quorum_lost"),
        ([], "quorum_lost"),
    ],
)
def test_what_a_coordinator_writes_is_accepted(receipts: list[SignedReceipt], outcome: str) -> None:
    result = signed_result(receipts)
    assert result.outcome == outcome
    assert refused(result) == ""
    assert refused(StudyResult.model_validate_json(result.model_dump_json()), known=receipts[:2]) == ""


@pytest.mark.parametrize("said", ["complete", "quorum_lost", "failed"])
def test_a_subset_cannot_be_called_anything_else(said: str) -> None:
    problem = refused(signed_result(SUBSET, outcome=said))
    assert problem.endswith("its signed receipts say complete on subset.")


def test_a_site_missing_only_in_the_closing_evaluation_makes_a_subset() -> None:
    result = signed_result(chain(3, {4: {"west": LATE}}), outcome="complete")
    assert "its signed receipts say complete on subset" in refused(result)


def test_a_run_that_did_not_end_cannot_be_called_complete() -> None:
    for outcome in ("complete", "complete_on_subset"):
        problem = refused(signed_result(chain(3, closed=False), outcome=outcome))
        assert "its signed receipts say quorum lost or failed" in problem


def test_a_round_that_was_resumed_counts_as_it_ended() -> None:
    first, second = chain(2, closed=False)
    lost = signed(second, outgoing_sha256="", sites={**second.sites, "south": DROPPED})
    again = signed(second, previous=lost.sha256())
    closing = signed(chain(2)[-1], previous=again.sha256())
    receipts = [first, lost, again, closing]
    verify_chain(receipts, public())
    assert refused(signed_result(receipts, outcome="complete")) == ""


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"receipts": dict.fromkeys(SITES, "in")}, "the state of south"),
        ({"receipts": {"north": "in", "south": "late", "west": "in"}}, "the state of south"),
        ({"receipts": {"north": "in", "south": "dropped"}}, "the state of west"),
        ({"reasons": {"south": "D_OFFLINE"}}, "the reason of south"),
        ({"reasons": {}}, "the reason of south"),
        ({"stages": {"south": "train"}}, "the stage of south"),
        ({"stages": {"south": "upload", "west": "train"}}, "the stage of west"),
    ],
)
def test_each_word_about_a_round_is_compared(changes: dict[str, Any], problem: str) -> None:
    assert refused(with_round(signed_result(SUBSET), 2, **changes)) == (
        f"Round 2: {problem} in the result is not what was signed."
    )


def test_rounds_sites_and_weights_are_compared() -> None:
    result = signed_result(SUBSET)
    fewer = result.model_copy(update={"rounds": result.rounds[:2]})
    assert "other rounds than" in refused(fewer)
    assert "other rounds than" in refused(with_round(result, 3, round=7))
    assert "other sites than" in refused(result.model_copy(update={"sites": result.sites[:2]}))
    for other in (weights(2), ""):
        final = result.model_copy(update={"final_weights_sha256": other})
        assert "final weights are not those of the last signed round" in refused(final)
    nothing_made = signed_result([signed(chain(1, closed=False)[0], outgoing_sha256="")])
    assert nothing_made.final_weights_sha256 == weights(0)
    assert refused(nothing_made) == ""


def test_receipts_taken_away_are_missed() -> None:
    result = signed_result(SUBSET)
    assert (
        refused(result.model_copy(update={"signed_receipts": []})) == "The result holds no signed receipts."
    )
    # shortened everywhere to a run that failed, the result alone fits; what the checkpoint holds does not
    short = signed_result(SUBSET[:2], outcome="failed")
    assert refused(short) == ""
    assert "Receipt 3 (round 3), which the newest checkpoint has, is missing" in refused(
        short, known=SUBSET[:3]
    )
    nothing = signed_result([], outcome="failed")
    assert "Receipt 1 (round 1)" in refused(nothing, known=SUBSET[:3])
    other = chain(3)
    assert "Receipt 2 (round 2) is not the one in the newest checkpoint" in refused(result, known=other)


def test_another_key_run_or_study_is_refused() -> None:
    result = signed_result(SUBSET)
    assert "names another key" in refused(result, public(OTHER_KEY))
    own = signed_result(chain(key=OTHER_KEY), receipts_public_key=public(OTHER_KEY))
    assert refused(own, public(OTHER_KEY)) == ""  # who brings the key along proves nothing
    assert "names another key" in refused(own)
    disguised = own.model_copy(update={"receipts_public_key": public()})
    assert "signed with another key" in refused(disguised)
    assert "is of another run" in refused(result, run="three_sites-dddddddddddd-002")
    assert "is of another study" in refused(result.model_copy(update={"digest": "c" * 64}))
