"""The table a study ends with, in every form."""

import csv
import io

import pytest
from rich.console import Console

from semc.reporting.tables import COLUMNS, site_csv, site_markdown, site_table
from tests.semc.reporting.study_result import SITES, study_result

MARKDOWN = """\
| hospital | train images | test images | accuracy alone | accuracy federation | balanced accuracy alone \
| balanced accuracy federation | macro-F1 alone | macro-F1 federation | macro-F1 difference |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| north | 100 | 60 | 0.600 | 0.900 | 0.600 | 0.900 | 0.600 | 0.900 | +0.300 |
| south | 101 | 60 | 0.600 | 0.900 | 0.600 | 0.900 | 0.600 | 0.900 | +0.300 |
| west | 102 | 60 | 0.600 | 0.900 | 0.600 | 0.900 | 0.600 | 0.900 | +0.300 |
| mean over hospitals | – | – | – | – | – | – | 0.600 | 0.900 | +0.300 |
| all test images | 303 | 180 | 0.600 | 0.900 | 0.600 | 0.900 | 0.600 | 0.900 | +0.300 |

worst hospital, federation: north, macro-F1 0.900, n = 60

worst hospital, alone: north, macro-F1 0.600, n = 60

The federation reaches a mean macro-F1 of 0.900 over 3 hospitals, 0.300 above training alone (0.600). \
The weakest hospital has 0.900 (north, n = 60); alone, the weakest has 0.600 (north, n = 60).

One run with one seed, 180 test images in all.

Privacy mode none: no formal guarantee.
"""


def _terminal(**arms: tuple[int, int] | None) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(site_table(study_result(**arms)))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    return " ".join(text.split())  # sentences wrap


def test_markdown_is_the_stored_one():
    assert site_markdown(study_result()) == MARKDOWN


def test_csv_holds_sites_only_and_unrounded_numbers():
    rows = list(csv.DictReader(io.StringIO(site_csv(study_result(federation=(13, 7))))))
    assert [row["hospital"] for row in rows] == SITES
    assert tuple(rows[0]) == (*COLUMNS, "privacy", "outcome")
    assert {row["privacy"] for row in rows} == {"no formal guarantee"}
    assert float(rows[0]["accuracy federation"]) == 13 / 20
    assert float(rows[0]["macro-F1 difference"]) == pytest.approx(0.05)


def test_an_arm_that_was_not_run_is_absent_not_zero():
    rows = list(csv.DictReader(io.StringIO(site_csv(study_result(alone=None)))))
    assert rows[0]["macro-F1 alone"] == rows[0]["macro-F1 difference"] == ""
    assert "| north | 100 | 60 | – | 0.900 |" in site_markdown(study_result(alone=None))
    text = _terminal(alone=None)
    assert "0.000" not in text
    assert "Training alone was not run" in text


def test_terminal_table_names_every_site_and_the_worst():
    text = _terminal()
    assert all(site in text for site in SITES)
    assert "Privacy mode none: no formal guarantee." in text
    assert "worst hospital, federation: north, macro-F1 0.900, n = 60" in text
    assert "+0.300" in text


def test_terminal_table_says_so_where_the_federation_loses():
    text = _terminal(federation=(10, 10), alone=(15, 5))
    assert "-0.250" in text
    assert "0.250 below training alone" in text
