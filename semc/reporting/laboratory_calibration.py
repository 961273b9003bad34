"""The table of calibration errors, arm by arm or condition by condition."""

from __future__ import annotations

from semc.reporting.calibration import NUM_BINS, mean_ece
from semc.reporting.captions import caption
from semc.reporting.groups import Groups, sites_in_every_group
from semc.reporting.text_table import TextTable, format_score
from semc.reporting.thin_sites import note_on_thin, thin_sites


def calibration_table(groups: Groups, what: str) -> TextTable:
    """Return the calibration error of every group at every site."""
    sites = tuple(dict.fromkeys(record.test_site for records in groups.values() for record in records))
    thin = thin_sites(record for records in groups.values() for record in records)
    shared = sites_in_every_group(groups) - set(thin)
    rows = []
    for name, records in groups.items():
        by_site = {site: [record for record in records if record.test_site == site] for site in sites}
        errors = {site: mean_ece(found) if found else None for site, found in by_site.items()}
        known = [error for site, error in errors.items() if error is not None and site in shared]
        mean = sum(known) / len(known) if known else None
        rows.append((name, *map(format_score, errors.values()), format_score(mean)))
    return TextTable(
        title=f"Calibration error, {what} by {what}",
        caption=caption(
            f"Expected calibration error of the called class, {NUM_BINS} equal bins, mean over seeds (Guo et al.,",
            "ICML 2017): how far, on average, the stated probability is from the share that is right. 0 is best;",
            "with few images most of it is chance, and upwards. Mean: over the centres that every row has.",
            note_on_thin(thin),
        ),
        columns=(what, *sites, "mean"),
        rows=tuple(rows),
    )
