"""A study with patient-level privacy: what its page and tables say, never say, and do without counts."""

import csv
import io
import math

import pytest
from plotly.offline import get_plotlyjs
from pydantic import ValidationError
from rich.console import Console

from semc.reporting import StudyResult
from semc.reporting.disclosed_tables import (
    NOT_TOLD,
    SUPPRESSED,
    disclosed_table,
    judge_disclosed,
    recall_table,
)
from semc.reporting.privacy_statement import NO_GUARANTEE, PrivacyStatement, _percent, in_short, one_sentence
from semc.reporting.report import render_report
from semc.reporting.tables import site_csv, site_markdown, site_table
from tests.semc.reporting.private_result import RATES, STATEMENT, private_result
from tests.semc.reporting.study_result import SITES, study_result


def _page(result: StudyResult) -> str:
    return render_report(result).replace(get_plotlyjs(), "")


def _terminal(result: StudyResult) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(site_table(result))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    return " ".join(text.split())


EVERYWHERE = [_page, _terminal, site_markdown, site_csv]


@pytest.mark.parametrize("show", EVERYWHERE)
def test_mode_none_says_so_everywhere_and_patient_dp_nowhere(show):
    assert "no formal guarantee" in show(study_result()).lower()
    private = show(private_result()).lower().replace("which are no formal guarantee", "")
    assert "no formal guarantee" not in private
    assert "epsilon 3.68" in private


@pytest.mark.parametrize("show", EVERYWHERE)
@pytest.mark.parametrize("result", [private_result(), study_result()])
def test_nobody_is_called_anonymous(show, result):
    assert "anonym" not in show(result).lower()


def test_page_terminal_and_markdown_give_the_guarantee_in_one_sentence():
    sentence = STATEMENT.sentence()
    assert sentence.endswith(".")
    assert ". " not in sentence
    assert "each hospital's ledger stops this study at epsilon 4.00 or at its policy's limit" in sentence
    for text in (_page(private_result()).replace("&#39;", "'"), _terminal(private_result())):
        assert sentence in text
    assert sentence in site_markdown(private_result())


@pytest.mark.parametrize("epsilon", [0.0, 0.01, 1.0, 3.678, 8.0, 13.0, 60.0, 700.0])
def test_the_sentence_never_promises_more_than_epsilon(epsilon: float):
    sentence = STATEMENT.model_copy(update={"epsilon": epsilon}).sentence()
    factor = float(sentence.split("at most ")[1].split(" ")[0].replace(",", ""))
    percent = float(sentence.split("to at most ")[1].split(" ")[0])
    assert factor >= math.exp(epsilon) * (1 - 1e-9) if epsilon < 13 else factor >= math.exp(epsilon) * 0.94
    assert percent / 100 >= 1 / (1 + math.exp(-epsilon)) - 1e-12
    assert percent <= 100


def test_the_page_states_what_is_promised_against_whom_and_what_is_outside():
    words = _page(private_result()).replace("&#39;", "'")
    for fact in (
        *STATEMENT.outside,
        STATEMENT.adversary,
        STATEMENT.unit,
        "49,000 values",
        "b" * 64,
        "3.37 (PRV)",
    ):
        assert fact in words, fact
    assert "3" * 64 in words
    assert "2" * 64 not in words, "only the latest head of a site"
    assert "batch-norm statistics are public" in words


def test_a_page_without_counts_has_no_curves_and_no_matrices():
    words = _page(private_result())
    assert "plotly-graph-div" not in words
    assert "training images</" not in words
    assert "None" not in words
    assert "plotly-graph-div" in _page(study_result()), "control"


def test_rates_are_shown_as_told_and_suppressed_is_a_word():
    table = disclosed_table(private_result())
    assert table.rows == (
        ("north", "2 of 3", "0.81", "0.79", "0.77"),
        ("south", "2 of 3", "0.81", "0.79", "0.77"),
        ("west", *[NOT_TOLD] * 4),
    )
    assert recall_table(private_result()).rows[1] == ("abdomen", SUPPRESSED, SUPPRESSED)
    for text in (_page(private_result()), site_markdown(private_result())):
        assert SUPPRESSED in text
        assert "<td>–</td>" not in text.partition("To repeat this study")[0]
        assert "| – " not in text


def test_csv_has_rates_and_words():
    rows = list(csv.DictReader(io.StringIO(site_csv(private_result()))))
    assert [row["hospital"] for row in rows] == SITES
    assert (rows[0]["macro-F1"], rows[0]["recall abdomen"]) == ("0.77", SUPPRESSED)
    assert rows[2]["recall head"] == NOT_TOLD
    assert rows[0]["privacy"] == in_short(STATEMENT)


def test_the_verdict_claims_no_gain():
    verdict = judge_disclosed(private_result())
    assert verdict.answer == "unknown"
    assert "mean macro-F1 of 0.77 over 2 hospitals" in verdict.sentence
    assert "No hospital told" in judge_disclosed(private_result(told=())).sentence


def test_mode_none_has_one_sentence_too():
    assert one_sentence(None) == NO_GUARANTEE


@pytest.mark.parametrize(
    "change",
    [
        {"guarantee": None},
        {"privacy": "none"},
        {"sites": [{"site": "north", "num_train_examples": None, "disclosed": RATES | {"recall": [0.5]}}]},
        {"sites": [{"site": "north", "num_train_examples": None, "disclosed": RATES | {"accuracy": -1.0}}]},
        {
            "sites": [
                {
                    "site": "north",
                    "num_train_examples": None,
                    "disclosed": RATES | {"recall": [0.5, -1.0, 0.5]},
                }
            ]
        },
    ],
)
def test_a_result_promises_what_its_mode_does(change: dict[str, object]):
    with pytest.raises(ValidationError):
        StudyResult.model_validate(private_result().model_dump() | change)


def test_mode_none_takes_no_rates():
    content = study_result().model_dump()
    content["sites"][0]["disclosed"] = RATES
    with pytest.raises(ValidationError, match="belong to mode patient_dp"):
        StudyResult.model_validate(content)


def test_a_statement_refuses_what_it_does_not_know():
    with pytest.raises(ValidationError):
        PrivacyStatement.model_validate(STATEMENT.model_dump() | {"anonymous": True})


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 4.0, 7.94, 12.0, 16.0])
def test_the_odds_are_rounded_up_and_never_to_certainty(epsilon: float) -> None:
    exact = 100 / (1 + math.exp(-epsilon))
    assert exact <= float(_percent(epsilon)) < 100
    assert float(_percent(epsilon)) - exact < 0.1
