"""Centres of a cohort as sites: which are large enough, and what the site is called."""

from __future__ import annotations

import re
from collections.abc import Sequence

from semc.exit_codes import ExitCode, SemcError
from simulation.cohort import CENTRE_JOIN, Cohort

POOLED = "pooled"
"""Site of all centres too small for one of their own, where a cohort's rule pools them."""


def usable_centres(cohort: Cohort, min_patients: int, keep: Sequence[str] | None = None) -> dict[str, int]:
    """Return the centres that can train (two classes, enough patients) with their patients, largest first.

    Args:
        cohort: The source.
        min_patients: Fewest patients of a centre.
        keep: Exactly these centres, by their own or their site's name, whatever their size.

    Returns:
        Centre to number of patients; POOLED stands for all small ones where the cohort's rule pools them.

    Raises:
        SemcError: USAGE where a centre to keep does not exist.
    """
    labels: dict[str, set[int]] = {}
    for row in cohort.rows:
        labels.setdefault(row.centre, set()).add(row.label)
    sizes = {
        str(centre): int(size)
        for centre, size in cohort.patients()["centre"].value_counts().items()
        if centre
    }
    if keep is not None:
        by_name = {**{site_name(centre): centre for centre in sizes}, **{centre: centre for centre in sizes}}
        unknown = [name for name in keep if name not in by_name]
        if unknown:
            raise SemcError(
                ExitCode.USAGE,
                f"There is no centre '{unknown[0]}'.",
                f"keep any of: {'; '.join(sorted(sizes))}",
            )
        return {by_name[name]: sizes[by_name[name]] for name in keep}
    usable = {
        centre: size for centre, size in sizes.items() if size >= min_patients and len(labels[centre]) > 1
    }
    small = [centre for centre in sizes if centre not in usable]
    if cohort.rule.pool_small and len(set().union(*(labels[centre] for centre in small))) > 1:
        usable[POOLED] = sum(sizes[centre] for centre in small)
    return dict(sorted(usable.items(), key=lambda item: (-item[1], item[0])))


def centres_left_out(cohort: Cohort, min_patients: int) -> dict[str, str]:
    """Return the centres that cannot be sites of their own, each with the reason."""
    labels: dict[str, set[int]] = {}
    patients: dict[str, set[str]] = {}
    for row in cohort.rows:
        labels.setdefault(row.centre, set()).add(row.label)
        patients.setdefault(row.centre, set()).add(row.group)
    reasons = {}
    for centre in sorted(filter(None, labels)):
        if len(labels[centre]) < 2:
            reasons[centre] = "a single class: the centre gives it away"
        elif len(patients[centre]) < min_patients:
            reasons[centre] = f"fewer than {min_patients} patients"
    return reasons


def why_unusable(cohort: Cohort, min_patients: int) -> str:
    """Tell in one sentence why no centre of a cohort can be a site."""
    reasons = list(centres_left_out(cohort, min_patients).values())
    if not reasons:
        return "The source has no centres of its own."
    num_single = sum(reason.startswith("a single class") for reason in reasons)
    if num_single == len(reasons):
        return f"Each of the {num_single} centres holds a single class: the centre gives the class away."
    return (
        f"No centre of the source can be a site: of {len(reasons)}, {num_single} hold a single class, "
        f"the others fewer than {min_patients} patients."
    )


def pooled(centre: str, centres: dict[str, int]) -> str:
    """Return the usable centre that a centre's patients go to: itself, or POOLED where there is one."""
    return centre if centre in centres or POOLED not in centres else POOLED


def site_name(centre: str) -> str:
    """Return a centre's name as a site name: "Voluson E6 x Op. 1" becomes "voluson-e6_op-1"."""
    parts = [re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in centre.split(CENTRE_JOIN)]
    return ("_".join(part for part in parts if part) or "centre")[:40]
