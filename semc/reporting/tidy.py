"""One line per scored model and test site, for anyone who wants to count themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pandas as pd

from semc.reporting.calibration import reliability
from semc.reporting.predictions import Predictions

TIDY_COLUMNS: Final = (
    "arm",
    "seed",
    "protocol",
    "condition",
    "model_site",
    "test_site",
    "num_images",
    "num_patients",
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "ece",
)


def tidy_rows(predictions: Sequence[Predictions]) -> pd.DataFrame:
    """Return the scores of every record, unrounded, in the order given."""
    rows = [_row(record) for record in predictions]
    return pd.DataFrame(rows, columns=list(TIDY_COLUMNS))


def tidy_csv(predictions: Sequence[Predictions]) -> str:
    """Return :func:`tidy_rows` as CSV."""
    return str(tidy_rows(predictions).to_csv(index=False, lineterminator="\n"))


def _row(record: Predictions) -> dict[str, object]:
    confusion = record.confusion
    return {
        "arm": record.arm,
        "seed": record.seed,
        "protocol": record.protocol,
        "condition": record.condition,
        "model_site": record.model_site,
        "test_site": record.test_site,
        "num_images": record.num_images,
        "num_patients": record.num_patients,
        "accuracy": confusion.accuracy,
        "balanced_accuracy": confusion.balanced_accuracy,
        "macro_f1": confusion.macro_f1,
        "ece": reliability([record]).ece,
    }
