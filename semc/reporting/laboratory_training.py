"""The table of what training ended with."""

from __future__ import annotations

from collections.abc import Mapping

from semc.reporting.text_table import TextTable, format_score


def training_table(training: Mapping[str, Mapping[str, float]]) -> TextTable:
    """Return the parts of every arm's objective in its last round; dashes where an arm has no such part."""
    terms = list(dict.fromkeys(term for by_term in training.values() for term in by_term))
    return TextTable(
        title="What training ended with",
        caption="Parts of the objective in the last round, mean over centres and seeds. alpha: share of the "
        "classification loss; queue_drift_cosine: cosine of old keys and what the new weights make of them.",
        columns=("arm", *terms),
        rows=tuple(
            (arm, *(format_score(by_term.get(term)) for term in terms)) for arm, by_term in training.items()
        ),
    )
