"""Every site's model on every site's test images: does a model carry its hospital's look into the next one?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from semc.reporting.bootstrap import PatientBootstrap
from semc.reporting.predictions import Predictions


@dataclass(frozen=True)
class CrossSiteMatrix:
    """One arm's matrix of macro-F1, mean over seeds."""

    arm: str
    model_sites: tuple[str, ...]
    test_sites: tuple[str, ...]
    macro_f1: tuple[tuple[float | None, ...], ...]
    """Rows in the order of `model_sites`; None where a model was not scored."""


def cross_site_matrices(predictions: Sequence[Predictions]) -> list[CrossSiteMatrix]:
    """Return the matrix of every arm that has records of the protocol cross_site.

    The diagonal, a site's own model at home, comes from the protocol per_site where cross_site lacks it.
    """
    arms = dict.fromkeys(record.arm for record in predictions if record.protocol == "cross_site")
    return [_matrix(arm, predictions) for arm in arms]


HOME: Final = "home"
AWAY: Final = "away"


def home_and_away(predictions: Sequence[Predictions]) -> dict[str, PatientBootstrap]:
    """Return, arm by arm, the groups :data:`HOME` and :data:`AWAY` over the same draws of test patients.

    On each site's test images, its own model (home) stands against the models of all other sites (away), which count
    alike. Arms without every pair of sites are left out.
    """
    found = {}
    for arm in dict.fromkeys(record.arm for record in predictions if record.protocol == "cross_site"):
        own = [record for record in predictions if record.arm == arm and record.model_site]
        home = [
            record
            for record in own
            if record.protocol == "per_site" and record.model_site == record.test_site
        ]
        away = [
            record
            for record in own
            if record.protocol == "cross_site" and record.model_site != record.test_site
        ]
        bootstrap = PatientBootstrap({HOME: home, AWAY: _as_runs(away)})
        if bootstrap.sites:
            found[arm] = bootstrap
    return found


def _as_runs(records: Sequence[Predictions]) -> list[Predictions]:
    """Give every model that was scored at a site a seed of its own, so that all of them enter the site's mean."""
    met: Counter[str] = Counter()
    runs = []
    for record in records:
        runs.append(replace(record, seed=met[record.test_site]))
        met[record.test_site] += 1
    return runs


def _matrix(arm: str, predictions: Sequence[Predictions]) -> CrossSiteMatrix:
    cells: dict[tuple[str, str], list[float]] = {}
    own = [record for record in predictions if record.arm == arm]
    crossed = [record for record in own if record.protocol == "cross_site"]
    covered = {(record.model_site, record.test_site) for record in crossed}
    home = [
        record
        for record in own
        if record.protocol == "per_site"
        and record.model_site
        and (record.model_site, record.test_site) not in covered
    ]
    for record in [*crossed, *home]:
        score = record.confusion.macro_f1
        if score is not None:
            cells.setdefault((record.model_site, record.test_site), []).append(score)
    test_sites = _in_order([record.test_site for record in predictions], [at for _, at in cells])
    model_sites = _in_order(test_sites, [model for model, _ in cells])
    means = {key: sum(scores) / len(scores) for key, scores in cells.items()}
    return CrossSiteMatrix(
        arm=arm,
        model_sites=model_sites,
        test_sites=test_sites,
        macro_f1=tuple(tuple(means.get((model, at)) for at in test_sites) for model in model_sites),
    )


def _in_order(order: Sequence[str], members: Sequence[str]) -> tuple[str, ...]:
    """Return distinct members, those of `order` first and as there."""
    first = [name for name in dict.fromkeys(order) if name in members]
    return tuple(dict.fromkeys([*first, *members]))
