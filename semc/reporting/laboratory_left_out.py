"""The table of left-out centres: every condition beside the unadapted model."""

from __future__ import annotations

from semc.reporting.bootstrap import PatientBootstrap
from semc.reporting.captions import INTERVAL, caption
from semc.reporting.groups import unadapted
from semc.reporting.text_table import ABSENT, TextTable, format_estimate, format_paired, format_spread
from semc.reporting.thin_sites import note_on_thin


def left_out_table(conditions: PatientBootstrap) -> TextTable:
    """Return every condition at every left-out centre, its mean and its difference to no adaptation."""
    sites = conditions.all_sites
    rows = []
    for name in conditions.names:
        mean, reference = conditions.mean(name), unadapted(name, conditions.names)
        difference = conditions.paired_difference(name, reference) if reference is not None else None
        rows.append(
            (
                name,
                *(format_estimate(conditions.site(name, site)) for site in sites),
                format_estimate(mean),
                format_spread(mean.spread if mean is not None else None),
                format_paired(difference),
                f"{100 * difference.share_above_zero:.0f} %" if difference is not None else ABSENT,
            )
        )
    return TextTable(
        title="A centre that took no part",
        caption=caption(
            f"Macro-F1 at each left-out centre, mean over seeds. {INTERVAL}",
            "Last column: share of the draws in which the condition is better than no adaptation.",
            note_on_thin(conditions.thin_sites),
        ),
        columns=(
            "condition",
            *(f"{site} (n = {conditions.num_images(site)})" for site in sites),
            f"mean over {len(conditions.sites)}",
            "lowest to highest seed",
            "against none",
            "draws above",
        ),
        rows=tuple(rows),
    )
