"""The floor every model must beat: always answering the class that is commonest over all centres."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from semc.metrics import Confusion
from semc.reporting.groups import Groups
from semc.reporting.site_counts import SiteCounts


def majority_scores(
    groups: Groups, site_counts: Mapping[str, SiteCounts], classes: Sequence[str]
) -> dict[str, float]:
    """Return test site to the macro-F1 of the commonest class as the only answer.

    Args:
        groups: Arms to records; any record of a site tells its test labels.
        site_counts: Images of each class at each site; where there are none, nothing is returned.
        classes: Names in label order.
    """
    totals = [sum(counts.class_counts.get(name, 0) for counts in site_counts.values()) for name in classes]
    if not any(totals):
        return {}
    called = int(np.argmax(totals))
    scores = {}
    for record in (record for records in groups.values() for record in records):
        counts_KK = np.zeros((len(classes), len(classes)), dtype=np.int64)
        counts_KK[:, called] = np.bincount(record.labels, minlength=len(classes))
        score = Confusion(counts_KK).macro_f1
        if score is not None:
            scores[record.test_site] = score
    return scores
