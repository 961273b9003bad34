"""The one answer about its test patients that a site gives in a private study: rates under small-cell rules.

The ledger counts such answers over all studies, and one study gets one: two answers about one fixed set of patients
could be compared. The answer is kept, so that the same question meets the same words also after patients were added.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from client.round_update import MetricValue
from semc.config import DisclosureConfig
from semc.datasets import ManifestRow
from semc.exit_codes import ExitCode, SemcError
from semc.privacy.disclosure import disclose
from semc.protocol import (
    SUPPRESSED,
    TEST_ACCURACY,
    TEST_BALANCED_ACCURACY,
    TEST_MACRO_F1,
    TEST_RECALL,
)
from semc.whole_file import write_whole

FILE_NAME: Final = "evaluation.json"


class _Answer(BaseModel):
    """What stands in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    incoming_sha256: str
    metrics: dict[str, float | list[float]]


class KeptAnswer:
    """The answer of one study.

    Args:
        folder: The study's folder in the site's state directory.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE_NAME

    def get(
        self, incoming_sha256: str, measure: Callable[[], dict[str, MetricValue]]
    ) -> dict[str, MetricValue]:
        """Return the kept answer, or measure and keep it.

        Args:
            incoming_sha256: Of the weights asked about; the ledger has admitted them.
            measure: Opens the data.

        Raises:
            SemcError: CHECKPOINT_INVALID where the kept answer is damaged, DISK.
        """
        kept = self._read()
        if kept is not None and kept.incoming_sha256 == incoming_sha256:
            return dict(kept.metrics)
        metrics = measure()
        self._write(_Answer(incoming_sha256=incoming_sha256, metrics=dict(metrics)))
        return metrics

    def _read(self) -> _Answer | None:
        try:
            return _Answer.model_validate_json(self._file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            raise SemcError(
                ExitCode.CHECKPOINT_INVALID,
                "The kept answer of this study's evaluation is damaged.",
                "restore it from a backup; it is not measured a second time",
            ) from error

    def _write(self, answer: _Answer) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._file, json.dumps(answer.model_dump()).encode())
        except OSError as error:
            raise SemcError(
                ExitCode.DISK,
                f"The answer of an evaluation could not be kept ({error.strerror}).",
                "free space or make the state directory writable",
            ) from error


def disclosed_metrics(
    rows: Sequence[ManifestRow],
    probabilities_BK: NDArray[np.float32],
    num_classes: int,
    rules: DisclosureConfig,
) -> dict[str, MetricValue]:
    """Return what may be told of the test patients, by the names of the protocol; nothing where they are too few.

    Args:
        rows: The test images.
        probabilities_BK: The model's answers, in the same order.
        num_classes: K.
        rules: The hospital's small-cell rules.
    """
    scores = disclose(
        [row.label for row in rows],
        probabilities_BK.argmax(axis=1).tolist(),
        [row.group for row in rows],
        num_classes,
        rules,
    )
    if scores is None:
        return {}
    return {
        TEST_ACCURACY: scores.accuracy,
        TEST_BALANCED_ACCURACY: scores.balanced_accuracy,
        TEST_MACRO_F1: scores.macro_f1,
        TEST_RECALL: [SUPPRESSED if recall is None else recall for recall in scores.recall],
    }
