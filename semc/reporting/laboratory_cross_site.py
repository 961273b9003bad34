"""Tables of every centre's model at every centre, and of what a model loses away from home."""

from __future__ import annotations

from collections.abc import Mapping

from semc.reporting.bootstrap import PatientBootstrap
from semc.reporting.captions import INTERVAL, caption
from semc.reporting.cross_site import AWAY, HOME, CrossSiteMatrix
from semc.reporting.text_table import TextTable, format_estimate, format_paired, format_score
from semc.reporting.thin_sites import note_on_thin


def cross_site_table(cross: CrossSiteMatrix) -> TextTable:
    """Return one arm's macro-F1 of every site's model at every site."""
    return TextTable(
        title=f"Every centre's model at every centre: {cross.arm}",
        caption="Macro-F1, mean over seeds. Row: whose model; column: whose test images.",
        columns=("model of", *cross.test_sites),
        rows=tuple(
            (model_site, *map(format_score, row))
            for model_site, row in zip(cross.model_sites, cross.macro_f1, strict=True)
        ),
    )


def away_table(arms: Mapping[str, PatientBootstrap]) -> TextTable:
    """Return what each arm's models lose on other centres' images.

    Args:
        arms: Of :func:`~semc.reporting.cross_site.home_and_away`.
    """
    thin = dict.fromkeys(site for bootstrap in arms.values() for site in bootstrap.thin_sites)
    return TextTable(
        title="What a model loses away from home",
        caption=caption(
            "Macro-F1, mean over test centres and seeds: each centre's images answered by its own model, and by",
            f"the models of the others. {INTERVAL}",
            note_on_thin(tuple(thin)),
        ),
        columns=("arm", "own model", "the others' models", "away minus home"),
        rows=tuple(
            (
                name,
                format_estimate(bootstrap.mean(HOME)),
                format_estimate(bootstrap.mean(AWAY)),
                format_paired(bootstrap.paired_difference(AWAY, HOME)),
            )
            for name, bootstrap in arms.items()
        ),
    )
