"""What training was like, arm by arm: the parts of the objective in every round, as the sites logged them.

Among them the share alpha of the classification loss, the use of the queue, and, where old keys are kept or encoded
again after a global update, the cosine of old and new keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pandas as pd

from simulation.arm_run import ArmRun

COLUMNS: Final = ("arm", "seed", "site", "round", "term", "value")


def term_rows(runs: Sequence[ArmRun]) -> pd.DataFrame:
    """Return one row per arm, seed, site, round and term."""
    rows = [
        (run.predictions[0].arm, run.predictions[0].seed, site, number, term, value)
        for run in runs
        for term, sites in run.terms.items()
        for site, curve in sites.items()
        for number, value in curve
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def last_terms(rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return arm to term to its mean over sites and seeds in each site's last round."""
    if rows.empty:
        return {}
    newest = rows.groupby(["arm", "seed", "site", "term"], sort=False)["round"].transform("max")
    last = rows[rows["round"] == newest]
    means = last.groupby(["arm", "term"], sort=False, as_index=False)["value"].mean()
    found: dict[str, dict[str, float]] = {}
    for arm, term, value in zip(means["arm"], means["term"], means["value"], strict=True):
        found.setdefault(arm, {})[term] = float(value)
    return found
