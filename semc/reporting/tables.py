"""The table a study ends with: per hospital, training alone against the federation; Markdown, CSV, terminal.

A study in which a hospital was missing, or that did not reach its end, says so first in every form.

A dash is a score that does not exist (no images, arm not run), which is not the same as zero. A study with
patient-level privacy has the tables of `disclosed_tables.py` instead. Each says what privacy the study gives.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.table import Table

from semc.metrics import Confusion
from semc.reporting.comparison import Comparison, Worst, compare
from semc.reporting.disclosed_tables import disclosed_csv, disclosed_table, judge_disclosed, recall_table
from semc.reporting.privacy_statement import in_short, one_sentence
from semc.reporting.result import OUTCOMES, StudyResult
from semc.reporting.text_table import ABSENT, format_difference, format_score, markdown_table
from semc.reporting.verdict import judge

COLUMNS: Final = (
    "hospital",
    "train images",
    "test images",
    "accuracy alone",
    "accuracy federation",
    "balanced accuracy alone",
    "balanced accuracy federation",
    "macro-F1 alone",
    "macro-F1 federation",
    "macro-F1 difference",
)


@dataclass(frozen=True)
class Row:
    """One line of the site table; numbers unrounded, None where a score does not exist."""

    name: str
    num_train_images: int | None
    num_test_images: int | None
    scores: tuple[float | None, ...]
    """In the order of :data:`COLUMNS` from "accuracy alone" on; the last is a difference."""

    def cells(self) -> list[str]:
        """Return the line as text, three decimals, the difference with its sign."""
        counts = [ABSENT if n is None else str(n) for n in (self.num_train_images, self.num_test_images)]
        scores = [format_score(score) for score in self.scores[:-1]]
        return [self.name, *counts, *scores, format_difference(self.scores[-1])]


def site_rows(comparison: Comparison) -> list[Row]:
    """Return one row per site, then the mean over sites and all test images pooled."""
    rows = [
        Row(
            name=site.site,
            num_train_images=site.num_train_examples,
            num_test_images=site.num_test_images,
            scores=(*_scores(site.local_only, site.federation), site.difference),
        )
        for site in comparison.sites
    ]
    alone, federation = comparison.pooled("local_only"), comparison.pooled("federation")
    both = comparison.has_local_only
    mean_alone, mean = comparison.mean_macro_f1("local_only"), comparison.mean_macro_f1("federation")
    rows.append(
        Row(
            name="mean over hospitals",
            num_train_images=None,
            num_test_images=None,
            scores=(None, None, None, None, mean_alone, mean, _difference(mean_alone, mean)),
        )
    )
    pooled = _scores(alone if both else None, federation)
    rows.append(
        Row(
            name="all test images",
            num_train_images=comparison.num_train_examples,
            num_test_images=federation.num_examples if federation is not None else 0,
            scores=(*pooled, _difference(pooled[4], pooled[5])),
        )
    )
    return rows


def site_table(result: StudyResult) -> Table:
    """Return the site table for a terminal; under it the worst site, the verdict, and what privacy the study gives."""
    if result.guarantee is not None:
        return _disclosed(result)
    comparison = compare(result)
    verdict = judge(comparison)
    table = Table(
        title=f"{result.study_name}: alone against the federation",
        title_style="bold",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    shown = (0, 1, 2, 3, 4, 7, 8, 9)
    for index in shown:
        # Two lines a heading, so that the table fits 80 characters.
        heading = COLUMNS[index].replace(" ", "\n").replace("federation", "together")
        table.add_column(
            heading, justify="left" if index == 0 else "right", overflow="fold", no_wrap=index > 0
        )
    rows = site_rows(comparison)
    for number, row in enumerate(rows):
        cells = row.cells()
        difference = row.scores[-1]
        colour = "" if not difference else "[green]" if difference > 0 else "[red]"
        cells[-1] = f"{colour}{cells[-1]}"
        table.add_row(*(cells[index] for index in shown), end_section=number == len(comparison.sites) - 1)
    lines = [
        *outcome_lines(result),
        *worst_lines(comparison),
        verdict.sentence,
        verdict.caution,
        one_sentence(result.guarantee),
    ]
    table.caption = "\n".join(lines)
    table.caption_justify = "left"
    return table


def site_markdown(result: StudyResult) -> str:
    """Return the site table as Markdown; under it the worst site, the verdict, and what privacy the study gives."""
    if result.guarantee is not None:
        verdict = judge_disclosed(result)
        tables = [table.markdown().rstrip() for table in (disclosed_table(result), recall_table(result))]
        words = (verdict.sentence, verdict.caution, one_sentence(result.guarantee))
        return "\n\n".join([*outcome_lines(result), *tables, *words]) + "\n"
    comparison = compare(result)
    verdict = judge(comparison)
    table = markdown_table(COLUMNS, [row.cells() for row in site_rows(comparison)])
    lines = [
        *outcome_lines(result),
        table,
        *worst_lines(comparison),
        verdict.sentence,
        verdict.caution,
        one_sentence(result.guarantee),
    ]
    return "\n\n".join(lines) + "\n"


def site_csv(result: StudyResult) -> str:
    """Return the rows of the sites, unrounded, as CSV; an empty cell is a score that does not exist."""
    if result.guarantee is not None:
        return disclosed_csv(result)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*COLUMNS, "privacy", "outcome"])
    comparison = compare(result)
    for row in site_rows(comparison)[: len(comparison.sites)]:
        cells = (row.name, row.num_train_images, row.num_test_images, *row.scores)
        writer.writerow([*cells, in_short(None), result.outcome])
    return stream.getvalue()


def outcome_lines(result: StudyResult) -> list[str]:
    """Return how the study ended, in words; nothing where it is complete, which needs none."""
    return [] if result.outcome == "complete" else [OUTCOMES[result.outcome]]


def worst_lines(comparison: Comparison) -> list[str]:
    """Return one line per arm naming its worst site and how many test images say so."""
    arms: Sequence[tuple[str, Worst | None]] = (
        ("federation", comparison.worst("federation")),
        ("alone", comparison.worst("local_only") if comparison.has_local_only else None),
    )
    return [
        f"worst hospital, {arm}: {worst.site}, macro-F1 {worst.macro_f1:.3f}, n = {worst.num_test_images}"
        for arm, worst in arms
        if worst is not None
    ]


def _disclosed(result: StudyResult) -> Table:
    """Return the table of a study with patient-level privacy for a terminal."""
    content, verdict = disclosed_table(result), judge_disclosed(result)
    table = Table(title=result.study_name, title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for index, column in enumerate(content.columns):
        table.add_column(
            column, justify="left" if index == 0 else "right", overflow="fold", no_wrap=index > 0
        )
    for row in content.rows:
        table.add_row(*row)
    table.caption = "\n".join(
        [
            *outcome_lines(result),
            content.caption,
            verdict.sentence,
            verdict.caution,
            one_sentence(result.guarantee),
        ]
    )
    table.caption_justify = "left"
    return table


def _scores(alone: Confusion | None, federation: Confusion | None) -> tuple[float | None, ...]:
    """Return the six scores of both arms in the order of the columns."""
    return tuple(
        getattr(arm, name) if arm is not None else None
        for name in ("accuracy", "balanced_accuracy", "macro_f1")
        for arm in (alone, federation)
    )


def _difference(alone: float | None, federation: float | None) -> float | None:
    return federation - alone if alone is not None and federation is not None else None
