"""Which test sites rest on too few patients: they are shown, but join no mean and no order of centres.

Images of one patient resemble each other, so patients are counted. Where a centre does not know its patients, every
image is recorded as a patient of its own, and images are what is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from semc.reporting.predictions import Predictions

MIN_INTERVAL_PATIENTS: Final = 5
"""Fewest test patients of a site that enters means and differences: of fewer, the draws are too alike for an
interval, and one patient more or less moves the score of every other site's mean."""
MIN_RANKED_PATIENTS: Final = 10
"""Fewest test patients with which a site, or a plane at a site, is ranked."""


def is_thin(num_patients: int) -> bool:
    """Whether a site has too few test patients to enter a mean."""
    return num_patients < MIN_INTERVAL_PATIENTS


def thin_sites(records: Iterable[Predictions]) -> tuple[str, ...]:
    """Return the thin test sites of records, in the order met."""
    patients = {record.test_site: record.num_patients for record in records}
    return tuple(site for site, number in patients.items() if is_thin(number))


def note_on_thin(sites: Sequence[str]) -> str:
    """Return the sentence that names thin sites under a table; "" without any."""
    if not sites:
        return ""
    return (
        f"Fewer than {MIN_INTERVAL_PATIENTS} test patients, so in no mean, worst centre, paired difference or gap: "
        f"{', '.join(sites)}."
    )
