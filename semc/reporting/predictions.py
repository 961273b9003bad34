"""What models answered on test images, image by image: the one record every figure of the laboratory comes from.

Recorded in simulations only, where all test images lie on one machine; a hospital answers with counts. A patient
is a number within its test site, enough to resample patients and useless to anyone else. On disk: one parquet
file, one row an image, the class names in its metadata.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from semc.exit_codes import ExitCode, SemcError
from semc.metrics import Confusion

Protocol = Literal["per_site", "cross_site", "loco"]
"""per_site: a site is scored by the model it would use; cross_site: by every site's model; loco: by models that were
trained without it."""
PROTOCOLS: Final[tuple[str, ...]] = get_args(Protocol)
_SUM_TOLERANCE: Final = 1e-3
_KEY: Final = ("arm", "seed", "protocol", "condition", "model_site", "test_site")
_TYPES: Final = {
    **{name: pa.string() for name in _KEY},
    "seed": pa.int64(),
    "patient": pa.int64(),
    "label": pa.int64(),
}
_METADATA: Final = b"semc.predictions"


@dataclass(frozen=True, eq=False)
class Predictions:
    """One scored model on one site's test images, one row an image.

    Raises:
        ValueError: No image, unequal lengths, a label outside 0 .. K - 1, a negative patient number, or rows that are
            no probabilities.
    """

    arm: str
    seed: int
    model_site: str
    """Whose model answers; "" for one model all sites share."""
    test_site: str
    """Whose test images are asked about."""
    patients: tuple[int, ...]
    """Each image's patient: a number within the test site, from :func:`number_patients`; never an identifier."""
    labels: tuple[int, ...]
    """True class ids."""
    probabilities_BK: NDArray[np.float32]
    """Probabilities [B, K]."""
    protocol: Protocol = "per_site"
    condition: str = ""
    """How the model met a left-out centre: none | bn_16 | fine_tune_10 | local | pooled ...; "" in other protocols."""

    def __post_init__(self) -> None:
        probabilities_BK = np.array(self.probabilities_BK, dtype=np.float32)  # a copy: it is made read-only
        if probabilities_BK.ndim != 2 or probabilities_BK.shape[1] < 2 or not len(probabilities_BK):
            raise ValueError(
                "probabilities have the shape [images, classes], with an image and two classes at least"
            )
        if not len(self.patients) == len(self.labels) == len(probabilities_BK):
            raise ValueError("patients, labels and probabilities differ in number")
        if min(self.labels) < 0 or max(self.labels) >= probabilities_BK.shape[1]:
            raise ValueError("a label is outside the classes")
        if min(self.patients) < 0:
            raise ValueError("patients are numbered from 0")
        sums_B = probabilities_BK.sum(axis=1)
        if not (probabilities_BK >= 0).all() or not (np.abs(sums_B - 1) < _SUM_TOLERANCE).all():
            raise ValueError("a row of probabilities is negative, not finite or does not sum to 1")
        if self.protocol not in PROTOCOLS or not self.arm or not self.test_site:
            raise ValueError("arm, test site and a known protocol are needed")
        if self.protocol == "per_site" and self.model_site not in ("", self.test_site):
            raise ValueError("another site's model belongs to the protocol cross_site")
        probabilities_BK.setflags(write=False)
        object.__setattr__(self, "probabilities_BK", probabilities_BK)

    @property
    def predicted_B(self) -> NDArray[np.int64]:  # noqa: N802 - shape suffix
        """The most probable class of every image [B]."""
        return np.asarray(self.probabilities_BK.argmax(axis=1), dtype=np.int64)

    @property
    def num_classes(self) -> int:
        """K."""
        return int(self.probabilities_BK.shape[1])

    @property
    def num_images(self) -> int:
        """B."""
        return len(self.labels)

    @property
    def num_patients(self) -> int:
        """Distinct patients."""
        return len(set(self.patients))

    @property
    def confusion(self) -> Confusion:
        """Counts of true and predicted classes."""
        return Confusion.from_predictions(self.labels, self.predicted_B.tolist(), self.num_classes)

    @property
    def key(self) -> tuple[str, int, str, str, str, str]:
        """Arm, seed, protocol, condition, model site and test site: no two records share it."""
        return self.arm, self.seed, self.protocol, self.condition, self.model_site, self.test_site


def number_patients(groups: Sequence[str]) -> tuple[int, ...]:
    """Return a number for each image's patient, in the order of first appearance; nothing leads back from it."""
    numbers: dict[str, int] = {}
    return tuple(numbers.setdefault(group, len(numbers)) for group in groups)


class _Header(BaseModel):
    """What the file says about itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    classes: Annotated[list[str], Field(min_length=2)]


def write_predictions(path: Path, predictions: Sequence[Predictions], classes: Sequence[str]) -> None:
    """Write records to one file, whole or not at all.

    Args:
        path: The parquet file; its folder is made where missing.
        predictions: Records with distinct keys.
        classes: K class names in the order of the labels.

    Raises:
        ValueError: Two records share a key, or one has another number of classes.
        SemcError: DISK where the file cannot be written.
    """
    if any(item.num_classes != len(classes) for item in predictions):
        raise ValueError("predictions with another number of classes than names")
    if any(count > 1 for count in Counter(item.key for item in predictions).values()):
        raise ValueError("two records of predictions share arm, seed, protocol, condition and sites")
    table = _table(predictions, classes)
    temporary = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, temporary, compression="zstd")
        os.replace(temporary, path)
    except OSError as error:
        raise SemcError(
            ExitCode.DISK,
            f"The predictions could not be written ({error.strerror}).",
            "free space or choose another folder",
        ) from error


def read_predictions(path: Path) -> tuple[list[Predictions], tuple[str, ...]]:
    """Read what :func:`write_predictions` wrote.

    Returns:
        The records in the order written, and the class names.

    Raises:
        SemcError: DATA_NOT_FOUND where there is no file, CHECKPOINT_INVALID where it is no such record.
    """
    if not path.is_file():
        raise SemcError(
            ExitCode.DATA_NOT_FOUND, "There is no file of predictions.", "run the comparison first"
        )
    try:
        table = pq.read_table(path)
        header = _Header.model_validate_json((table.schema.metadata or {}).get(_METADATA, b""))
        return _records(table, len(header.classes)), tuple(header.classes)
    except (pa.ArrowException, OSError, ValidationError, ValueError) as error:
        # A reader's own words may name the path.
        reason = str(error) if type(error) is ValueError else "it is no table this program wrote"
        raise SemcError(
            ExitCode.CHECKPOINT_INVALID,
            f"The file of predictions cannot be used: {reason}.",
            "run the comparison again; it records them anew",
        ) from error


def _table(predictions: Sequence[Predictions], classes: Sequence[str]) -> pa.Table:
    """Return one row an image."""
    lengths = [item.num_images for item in predictions]
    columns: dict[str, object] = {
        name: np.repeat(np.asarray([getattr(item, name) for item in predictions], dtype=object), lengths)
        for name in _KEY
    }
    columns["patient"] = [patient for item in predictions for patient in item.patients]
    columns["label"] = [label for item in predictions for label in item.labels]
    empty = np.empty((0, len(classes)), dtype=np.float32)
    probabilities_BK = np.concatenate([empty, *(item.probabilities_BK for item in predictions)])
    for k in range(len(classes)):
        columns[f"p_{k}"] = probabilities_BK[:, k]
    header = _Header(classes=list(classes)).model_dump_json().encode()
    return pa.table(columns, schema=_schema(len(classes))).replace_schema_metadata({_METADATA: header})


def _schema(num_classes: int) -> pa.Schema:
    """Return names and types of the columns."""
    return pa.schema([*_TYPES.items(), *((f"p_{k}", pa.float32()) for k in range(num_classes))])


def _records(table: pa.Table, num_classes: int) -> list[Predictions]:
    """Return the records of a table.

    Raises:
        ValueError: Other columns, a missing value or a row that is no prediction.
    """
    if not table.schema.remove_metadata().equals(_schema(num_classes)):
        raise ValueError("its columns are not those of predictions")
    if any(column.null_count for column in table.columns):
        raise ValueError("it has empty cells")
    frame: pd.DataFrame = table.to_pandas()
    names = [f"p_{k}" for k in range(num_classes)]
    return [_record(rows, names) for _, rows in frame.groupby(list(_KEY), sort=False)]


def _record(rows: pd.DataFrame, names: list[str]) -> Predictions:
    """Return the record of rows that share a key."""
    key = rows.iloc[0]
    return Predictions(
        arm=key["arm"],
        seed=int(key["seed"]),
        protocol=key["protocol"],
        condition=key["condition"],
        model_site=key["model_site"],
        test_site=key["test_site"],
        patients=tuple(rows["patient"].tolist()),
        labels=tuple(rows["label"].tolist()),
        probabilities_BK=rows[names].to_numpy(dtype=np.float32),
    )
