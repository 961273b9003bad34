"""Figures and limits in words, as the laboratory's answers give them."""

from __future__ import annotations

from semc.reporting.bootstrap import PatientBootstrap
from semc.reporting.estimate import Difference, Estimate
from semc.reporting.thin_sites import MIN_INTERVAL_PATIENTS, MIN_RANKED_PATIENTS, note_on_thin


def limits_in_words(groups: PatientBootstrap) -> str:
    """Say how far the answer carries."""
    images = sum(map(groups.num_images, groups.sites))
    patients = sum(map(groups.num_patients, groups.sites))
    seeds = {groups.num_seeds(name) for name in groups.names}
    runs = (
        f"{min(seeds)} to {max(seeds)} seeds"
        if len(seeds) > 1
        else f"{max(seeds)} seed{'s' * (max(seeds) != 1)}"
    )
    parts = [f"{images} test images of {patients} patients, {runs}."]
    if min(seeds) == 1:
        parts.append("Where there is one seed, the chance in training is not seen.")
    if groups.thin_sites:
        parts.append(note_on_thin(groups.thin_sites))
    small = [site for site in groups.sites if groups.num_patients(site) < MIN_RANKED_PATIENTS]
    if small:
        parts.append(
            f"In the mean, but too small to be named weakest, with fewer than {MIN_RANKED_PATIENTS} test patients: "
            f"{', '.join(small)}."
        )
    missing = [site for site in groups.all_sites if site not in (*groups.sites, *groups.thin_sites)]
    if missing:
        parts.append(f"In no mean, as some run lacks it: {', '.join(missing)}.")
    return " ".join(parts)


def no_mean_in_words(groups: PatientBootstrap, what: str) -> str:
    """Say why no site enters a mean."""
    if groups.all_sites and set(groups.all_sites) == set(groups.thin_sites):
        return f"No centre has {MIN_INTERVAL_PATIENTS} test patients"
    return f"No centre with enough test patients was scored by every {what}"


def score_in_words(estimate: Estimate) -> str:
    """Return a score with its interval, or why there is none."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f} (too few patients for an interval)"
    return f"{estimate.value:.3f} (95 % interval {estimate.low:.3f} to {estimate.high:.3f})"


def signed(estimate: Estimate) -> str:
    """Return a difference with its sign and interval."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.3f}"
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f})"


def paired_in_words(difference: Difference) -> str:
    """Return a paired difference with what may be said of it."""
    ending = {
        1: "the interval leaves out zero",
        0: "the interval does not leave out zero, so the difference can be chance",
        -1: "the interval lies below zero",
    }[difference.sign]
    turns = "" if difference.steady else " Its sign hangs on the seed, so it is not settled."
    return f"Difference on the same patients: {signed(difference.estimate)}; {ending}.{turns}"


def by_seed_in_words(difference: Difference) -> list[str]:
    """Say what the seeds alone say."""
    spread = difference.estimate.spread
    return [] if spread is None else [f"Seed by seed the difference is {spread[0]:+.3f} to {spread[1]:+.3f}."]


def told_apart(difference: Difference) -> str:
    """Say where a difference can be chance; "" where it cannot."""
    return "" if difference.sign else ", not told apart"
