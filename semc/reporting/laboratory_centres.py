"""Tables with a column a centre: every arm's score, and every arm's difference to one of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from semc.reporting.bootstrap import PatientBootstrap
from semc.reporting.captions import BRACKETS, INTERVAL, caption
from semc.reporting.patient_draws import Metric
from semc.reporting.text_table import ABSENT, TextTable, format_estimate, format_paired, format_score
from semc.reporting.thin_sites import note_on_thin

MAJORITY: Final = "always the commonest class"
_IN_WORDS: Final[Mapping[Metric, str]] = {
    "macro_f1": "Macro-F1",
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
}


def sites_table(
    groups: PatientBootstrap, what: str, majority: Mapping[str, float] | None = None
) -> TextTable:
    """Return every group's score at every site.

    Args:
        groups: Arms or conditions.
        what: Which of the two, for the heading.
        majority: Site to what always answering the commonest class would score; None for no such row.
    """
    sites = groups.all_sites
    score = _IN_WORDS[groups.metric]
    return TextTable(
        title=f"Every {what} at every centre" + ("" if groups.metric == "macro_f1" else f": {score.lower()}"),
        caption=caption(
            f"{score}, mean over seeds. {BRACKETS} No bracket: too few patients. {ABSENT} = not scored.",
            note_on_thin(groups.thin_sites),
        ),
        columns=(what, *sites_in_words(groups)),
        rows=(
            *((name, *(format_estimate(groups.site(name, site)) for site in sites)) for name in groups.names),
            *([(MAJORITY, *(format_score(majority.get(site)) for site in sites))] if majority else []),
        ),
    )


def differences_table(arms: PatientBootstrap, reference: str) -> TextTable:
    """Return every arm's paired difference to one arm, at every site and in the mean.

    Args:
        arms: Over :func:`~semc.reporting.groups.arm_groups`.
        reference: One of them; it has no row.
    """
    sites = arms.all_sites
    return TextTable(
        title=f"Every arm minus {reference}, centre by centre",
        caption=caption(
            f"Macro-F1 of the arm minus that of {reference} on the same patients, mean over seeds. {INTERVAL}",
            f"{ABSENT} = not scored by both, or too few patients.",
            note_on_thin(arms.thin_sites),
        ),
        columns=("arm", *sites_in_words(arms), f"mean over {len(arms.sites)}"),
        rows=tuple(
            (
                name,
                *(format_paired(arms.paired_difference(name, reference, site)) for site in sites),
                format_paired(arms.paired_difference(name, reference)),
            )
            for name in arms.names
            if name != reference
        ),
    )


def sites_in_words(groups: PatientBootstrap) -> list[str]:
    """Return every site with its test images and patients, as the heading of a column."""
    return [
        f"{site} (n = {groups.num_images(site)}, {groups.num_patients(site)} patients)"
        for site in groups.all_sites
    ]
