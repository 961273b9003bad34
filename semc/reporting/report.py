"""One self-contained HTML page a clinician can read: the question, the answer, and everything behind it.

The page loads nothing: styles, images and plotly.js are inside, and its own content security policy forbids
the browser to fetch anything else. The same result always gives the same bytes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from markupsafe import Markup

from semc.metrics import ClassScores, Confusion
from semc.reporting.comparison import Comparison, compare
from semc.reporting.disclosed_tables import disclosed_table, judge_disclosed, recall_table
from semc.reporting.intervals import accuracy_interval
from semc.reporting.page import figure_html, flat_settings, render_page, write_page
from semc.reporting.plots import confusion_heatmap, loss_curves, recall_bars, score_curves
from semc.reporting.privacy_statement import one_sentence, promise_rows
from semc.reporting.reasons import in_words
from semc.reporting.receipt import SignedReceipt, SiteReceipt, key_fingerprint
from semc.reporting.result import OUTCOMES, Outcome, StudyResult
from semc.reporting.sample_images import thumbnail
from semc.reporting.tables import COLUMNS, site_csv, site_markdown, site_rows, worst_lines
from semc.reporting.text_table import ABSENT, format_score
from semc.reporting.verdict import Verdict, judge

BN_MODES: Final = {
    "silo": "each hospital keeps its own batch-norm statistics; gamma and beta are shared",
    "fedbn": "each hospital keeps its own batch-norm statistics, gamma and beta",
    "average": "batch-norm layers are shared and averaged in full",
    "frozen": "batch-norm statistics are public, come with the weights, and no hospital changes them",
}


@dataclass(frozen=True)
class Participation:
    """One hospital's receipts over all rounds."""

    site: str
    num_train_examples: int | None
    rounds_in: int
    rounds: int
    exceptions: tuple[str, ...]
    """Rounds it was not in, with state, stage and reason; the closing evaluation too."""


@dataclass(frozen=True)
class Matrix:
    """One confusion matrix of the page."""

    title: str
    note: str
    figure: Markup


def build_report(result: StudyResult, out: Path) -> Path:
    """Write the report of a study.

    Args:
        result: The study; any part may be missing, as after a study that stopped.
        out: The HTML file; its folder is made where missing.

    Returns:
        `out`.

    Raises:
        SemcError: DISK where the file cannot be written, DATA_UNREADABLE where a sample image is none.
    """
    return write_page(render_report(result), out)


def write_study_report(result: StudyResult, folder: Path) -> Path:
    """Write `report.html`, `result.json`, and the site table as `sites.csv` and `sites.md`; arguments as above.

    Returns:
        The HTML file.
    """
    report = build_report(result, folder / "report.html")
    texts = {
        "result.json": result.model_dump_json(indent=2),
        "sites.csv": site_csv(result),
        "sites.md": site_markdown(result),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return report


def render_report(result: StudyResult) -> str:
    """Return the report's HTML."""
    comparison = compare(result)
    rows = site_rows(comparison)
    return render_page(
        "report.html.j2",
        result=result,
        outcome=OUTCOMES[result.outcome],
        bn_mode=BN_MODES[result.bn],
        verdict=_qualified(
            judge(comparison) if result.guarantee is None else judge_disclosed(result), result.outcome
        ),
        privacy=one_sentence(result.guarantee),
        guarantee=result.guarantee,
        promise=[] if result.guarantee is None else promise_rows(result.guarantee),
        disclosed=[] if result.guarantee is None else [disclosed_table(result), recall_table(result)],
        num_train_images=comparison.num_train_examples,
        heads=_heads(result),
        fingerprint=key_fingerprint(result.receipts_public_key) if result.signed_receipts else "",
        newest_receipt=result.signed_receipts[-1].sha256() if result.signed_receipts else "",
        columns=COLUMNS,
        site_rows=rows[: len(comparison.sites)],
        summary_rows=rows[len(comparison.sites) :],
        worst=worst_lines(comparison),
        intervals=[
            (site.site, _interval(site.local_only), _interval(site.federation)) for site in comparison.sites
        ],
        participation=[_participation(result, site.site, site.num_train_examples) for site in result.sites],
        samples=[(site.site, [thumbnail(image) for image in site.sample_images]) for site in result.sites],
        class_rows=_class_rows(result, comparison),
        score_figure=figure_html(score_curves(result), "macro-f1") if _counted(result) else None,
        loss_figure=figure_html(loss_curves(result), "loss") if _counted(result) else None,
        recall_figure=figure_html(recall_bars(result), "recall") if comparison.pooled("federation") else None,
        matrices=_matrices(result, comparison),
        settings=list(flat_settings(result.settings)),
    )


def _qualified(verdict: Verdict, outcome: Outcome) -> Verdict:
    """Return the verdict with the study's outcome before its caution; half a study settles nothing."""
    if outcome == "complete":
        return verdict
    settled = outcome == "complete_on_subset" or verdict.answer == "unknown"
    caution = f"{OUTCOMES[outcome]} {verdict.caution}".strip()
    return replace(verdict, answer=verdict.answer if settled else "unclear", caution=caution)


def _counted(result: StudyResult) -> bool:
    """Tell whether there is anything to draw round by round; with patient-level privacy no round is measured."""
    return bool(result.rounds) and result.guarantee is None


def _heads(result: StudyResult) -> list[tuple[str, int, str]]:
    """Return site, round and hash of the last ledger head each site gave."""
    latest = {
        site: (entry.round, head)
        for entry in result.rounds
        for site, head in sorted(entry.ledger_heads.items())
    }
    return [(site, *latest[site]) for site in sorted(latest)]


def _matrices(result: StudyResult, comparison: Comparison) -> list[Matrix]:
    """Return the federation's confusion over all hospitals and at each one."""
    named: list[tuple[str, Confusion | None]] = [("All hospitals", comparison.pooled("federation"))]
    named += [(site.site, site.federation) for site in comparison.sites]
    return [
        Matrix(
            title=name,
            note=f"{confusion.num_examples} test images, accuracy {format_score(confusion.accuracy)}",
            figure=figure_html(confusion_heatmap(confusion, result.classes), f"confusion-{number}"),
        )
        for number, (name, confusion) in enumerate(named)
        if confusion is not None
    ]


def _class_rows(result: StudyResult, comparison: Comparison) -> list[tuple[str, ClassScores, float | None]]:
    """Return class name, the federation's scores over all test images, and the recall of training alone."""
    federation = comparison.pooled("federation")
    if federation is None:
        return []
    alone = comparison.pooled("local_only")
    recalls = [row.recall for row in alone.per_class()] if alone is not None else [None] * len(result.classes)
    return list(zip(result.classes, federation.per_class(), recalls, strict=True))


def _participation(result: StudyResult, site: str, num_train_examples: int | None) -> Participation:
    """Return in how many rounds a hospital took part, and what happened in the others."""
    missed = [
        (_absence(*(kind.get(site, "") for kind in (item.receipts, item.stages, item.reasons))), item.round)
        for item in result.rounds
        if item.receipts.get(site) != "in"
    ]
    counts = Counter(absence for absence, _ in missed)
    exceptions = [
        f"{absence} in round{'s' if number > 1 else ''} "
        + ", ".join(str(at) for found, at in missed if found == absence)
        for absence, number in counts.items()
    ]
    closing = _closing(result, site)
    if closing is not None and closing.state != "in":
        exceptions.append(
            f"{_absence(closing.state, closing.stage, closing.reason)} in the closing evaluation"
        )
    rounds = len(result.rounds)
    return Participation(site, num_train_examples, rounds - len(missed), rounds, tuple(exceptions))


def _absence(state: str, stage: str, reason: str) -> str:
    """Return `dropped at upload (D_UPLOAD)`."""
    return (
        (state or "not asked")
        + (f" at {stage}" if stage else "")
        + (f" ({in_words(reason)})" if reason else "")
    )


def _closing(result: StudyResult, site: str) -> SiteReceipt | None:
    """Return a hospital's receipt of the closing evaluation, which belongs to no round."""
    last: SignedReceipt | None = result.signed_receipts[-1] if result.signed_receipts else None
    return last.sites.get(site) if last is not None and last.kind == "evaluate" else None


def _interval(confusion: Confusion | None) -> str:
    """Return an accuracy with its 95 % interval."""
    interval = accuracy_interval(confusion) if confusion is not None else None
    if confusion is None or interval is None:
        return ABSENT
    return f"{format_score(confusion.accuracy)} ({interval[0]:.2f} to {interval[1]:.2f})"
