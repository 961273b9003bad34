"""The tables of a study with patient-level privacy: rates the hospitals may tell, beside no count at all.

"suppressed" stands for a class with too few test patients, none included; it is neither zero nor absent.
"""

from __future__ import annotations

import csv
import io
from typing import Final

from semc.reporting.privacy_statement import in_short
from semc.reporting.result import DisclosedRates, StudyResult
from semc.reporting.text_table import TextTable
from semc.reporting.verdict import Verdict

SUPPRESSED: Final = "suppressed"
NOT_TOLD: Final = "not told"
"""The site did not answer the closing evaluation, or too few patients stand behind its rates."""
COLUMNS: Final = ("hospital", "classes shown", "accuracy", "balanced accuracy", "macro-F1")
NOTE: Final = (
    "Rates of each hospital's test patients, two decimals, over the classes it may show: within a class every patient "
    f"counts once, a class with too few patients is {SUPPRESSED} and enters no rate, and a hospital with too few "
    "patients in all tells nothing. So rare classes do not count here, and hospitals may be measured on different "
    "classes. Small-cell rules, not differential privacy."
)


def disclosed_table(result: StudyResult) -> TextTable:
    """Return one row per hospital."""
    rows = []
    for site in result.sites:
        rates = site.disclosed
        shown = NOT_TOLD if rates is None else f"{_num_shown(rates)} of {len(result.classes)}"
        scores = [NOT_TOLD] * 3 if rates is None else [f"{score:.2f}" for score in _scores(rates)]
        rows.append((site.site, shown, *scores))
    return TextTable("Each hospital", NOTE, COLUMNS, tuple(rows))


def recall_table(result: StudyResult) -> TextTable:
    """Return the recall of each class at each hospital that told its rates."""
    told = {site.site: site.disclosed.recall for site in result.sites if site.disclosed is not None}
    return TextTable(
        "Class by class",
        "Recall: of a class's test patients, the share called right.",
        ("class", *told),
        tuple(
            (name, *(_recall(recall[index]) for recall in told.values()))
            for index, name in enumerate(result.classes)
        ),
    )


def disclosed_csv(result: StudyResult) -> str:
    """Return hospitals, their rates and recalls, as CSV; words stand where a rate was not told."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"recall {name}" for name in result.classes), "privacy", "outcome"])
    table = disclosed_table(result)
    for row, site in zip(table.rows, result.sites, strict=True):
        told = site.disclosed
        recalls = [NOT_TOLD] * len(result.classes) if told is None else map(_recall, told.recall)
        writer.writerow([*row, *recalls, in_short(result.guarantee), result.outcome])
    return stream.getvalue()


def judge_disclosed(result: StudyResult) -> Verdict:
    """Say how good the final model is where hospitals told it; whether it beats training alone is not known."""
    told = [site.disclosed.macro_f1 for site in result.sites if site.disclosed is not None]
    if not told:
        return Verdict(
            "unknown", "No hospital told how good the final model is, so there is no score to report.", ""
        )
    hospitals = f"{len(told)} hospital{'s' if len(told) != 1 else ''}"
    return Verdict(
        "unknown",
        f"The federation reaches a mean macro-F1 of {sum(told) / len(told):.2f} over {hospitals}, the lowest is "
        f"{min(told):.2f}. Training alone is not set against it: its scores count images, these count patients of the "
        "classes that may be shown.",
        "One run; noise and the choice of patients are secret, so a second run gives other weights.",
    )


def _scores(rates: DisclosedRates) -> tuple[float, float, float]:
    return rates.accuracy, rates.balanced_accuracy, rates.macro_f1


def _num_shown(rates: DisclosedRates) -> int:
    return sum(recall is not None for recall in rates.recall)


def _recall(recall: float | None) -> str:
    return SUPPRESSED if recall is None else f"{recall:.2f}"
