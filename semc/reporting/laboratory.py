"""The laboratory's page: one self-contained HTML file on whether a study's answer holds across centres."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from markupsafe import Markup

from semc.metrics import Confusion
from semc.reporting.cross_site import CrossSiteMatrix
from semc.reporting.laboratory_cross_site import cross_site_table
from semc.reporting.laboratory_findings import (
    COVERAGE,
    PHANTOM,
    PRIVACY,
    CentreKind,
    Findings,
    LaboratoryContents,
    Part,
    centres_in_words,
    laboratory_markdown,
)
from semc.reporting.laboratory_plots import arm_curves, cross_site_heatmap, interval_plot, reliability_curves
from semc.reporting.page import figure_html, flat_settings, render_page, write_page
from semc.reporting.plots import confusion_heatmap
from semc.reporting.sample_images import thumbnail
from semc.reporting.site_counts import SiteCounts
from semc.reporting.text_table import DOWN, UP, TextTable
from semc.reporting.verdict import Verdict

__all__ = [
    "CentreKind",
    "LaboratoryContents",
    "SiteCounts",
    "build_laboratory_report",
    "laboratory_markdown",
    "render_laboratory_report",
]

HEADLINES: Final[Mapping[str, str]] = {
    "yes": "Yes, on these images.",
    "partly": "Partly.",
    "no": "No, not on these images.",
    "unclear": "Not settled by these images.",
    "unknown": "Not known.",
}


@dataclass(frozen=True)
class Picture:
    """A figure of the page with its heading."""

    title: str
    note: str
    figure: Markup


@dataclass(frozen=True)
class Answer:
    """One question of the page and what the figures say to it."""

    question: str
    headline: str
    verdict: Verdict


def build_laboratory_report(contents: LaboratoryContents, path: Path) -> Path:
    """Write the page.

    Args:
        contents: Any part but the predictions may be empty.
        path: The HTML file; its folder is made where missing.

    Returns:
        `path`.

    Raises:
        SemcError: DISK where the file cannot be written, DATA_UNREADABLE where a sample image is none,
            CHECKPOINT_INVALID where predictions cannot be paired.
    """
    return write_page(render_laboratory_report(contents), path)


def render_laboratory_report(contents: LaboratoryContents) -> str:
    """Return the page's HTML; the same contents always give the same bytes."""
    findings = contents.findings
    sites = dict.fromkeys(record.test_site for record in contents.predictions)
    return render_page(
        "laboratory.html.j2",
        contents=contents,
        findings=findings,
        answers=_answers(findings),
        centres=centres_in_words(contents),
        phantom=PHANTOM if contents.phantom else "",
        coverage=COVERAGE,
        privacy=PRIVACY,
        facts=_facts(contents, list(sites)),
        samples=[
            (site, [thumbnail(image) for image in images])
            for site, images in contents.sample_images.items()
            if images
        ],
        arms_plot=_interval_plot(findings.arms, "arms"),
        left_out_plot=_interval_plot(findings.left_out, "left-out"),
        curves=_curves(contents, list(sites)),
        cross_site=[_cross_site(cross, number) for number, cross in enumerate(findings.cross_site)],
        confusions=[
            picture
            for part, key in _keyed(findings)
            for picture in _confusions(part, key, list(contents.classes))
        ],
        reliability=[picture for part, key in _keyed(findings) for picture in _reliability(part, key)],
        settings=list(flat_settings(contents.settings)),
        up=UP,
        down=DOWN,
    )


def _answers(findings: Findings) -> list[Answer]:
    """Return the questions the predictions can answer."""
    asked = (
        ("Together or each alone?", findings.arms),
        ("And at a centre that took no part?", findings.left_out),
    )
    return [
        Answer(question, HEADLINES[part.verdict.answer], part.verdict)
        for question, part in asked
        if part is not None
    ]


def _facts(contents: LaboratoryContents, sites: list[str]) -> list[tuple[str, str]]:
    """Return number and name of what was compared."""
    counts = contents.site_counts.values()
    images = [
        (str(sum(item.num_train_images for item in counts)), "training images"),
        (str(sum(item.num_test_images for item in counts)), "test images"),
    ]
    return [
        (str(len(contents.site_counts) or len(sites)), "centres"),
        *(images if contents.site_counts else []),
        (str(len(contents.classes)), "classes"),
        (str(len({record.arm for record in contents.predictions})), "arms"),
        (str(len({record.seed for record in contents.predictions})), "seeds"),
    ]


def _interval_plot(part: Part | None, key: str) -> Markup | None:
    return figure_html(interval_plot(part.bootstrap), f"intervals-{key}") if part is not None else None


def _curves(contents: LaboratoryContents, sites: list[str]) -> list[Picture]:
    """Return the curves of every site that has any."""
    named = [site for site in sites if any(by_site.get(site) for by_site in contents.curves.values())]
    return [
        Picture(site, "", figure_html(arm_curves(contents.curves, site), f"curves-{number}"))
        for number, site in enumerate(named)
    ]


def _cross_site(cross: CrossSiteMatrix, number: int) -> tuple[Picture, TextTable]:
    figure = figure_html(cross_site_heatmap(cross), f"cross-site-{number}")
    return Picture(cross.arm, "", figure), cross_site_table(cross)


def _keyed(findings: Findings) -> list[tuple[Part, str]]:
    """Return the parts with a word that makes their figures' names unique."""
    named = ((findings.arms, "arm"), (findings.left_out, "condition"))
    return [(part, key) for part, key in named if part is not None]


def _confusions(part: Part, key: str, classes: list[str]) -> list[Picture]:
    """Return the confusion of every group over all sites and seeds."""
    pictures = []
    for number, (name, records) in enumerate(part.groups.items()):
        confusion = Confusion(np.sum([record.confusion.counts for record in records], axis=0))
        seeds = len({record.seed for record in records})
        note = f"all centres, {seeds} seeds: every image counts {seeds} times" if seeds > 1 else "all centres"
        figure = figure_html(confusion_heatmap(confusion, classes), f"confusion-{key}-{number}")
        pictures.append(Picture(_named(name, key), note, figure))
    return pictures


def _reliability(part: Part, key: str) -> list[Picture]:
    """Return the reliability curves of every group."""
    return [
        Picture(
            _named(name, key), "", figure_html(reliability_curves(records), f"reliability-{key}-{number}")
        )
        for number, (name, records) in enumerate(part.groups.items())
    ]


def _named(name: str, key: str) -> str:
    return f"left out, {name}" if key == "condition" else name
