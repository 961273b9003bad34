"""A cohort before anything is trained on it: classes, patients, centres, look-alikes, and cues that give it away.

Nothing is changed or merged here, and no message or figure names a patient: rows go by number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from semc.datasets.cohort_table import CentreKind, CentreRule, CohortOptions, CohortTable, ViewSource
from semc.datasets.manifest_row import locate
from semc.datasets.stills import read_still
from semc.exit_codes import SemcError
from simulation.cohort import read_tables
from simulation.near_duplicates import NearDuplicates, near_duplicates, perceptual_hash
from simulation.shortcuts import Shortcut, shortcut

MOST_CENTRES = 60
"""A rule with more centres is described in sums only."""
_GAIN = 0.1
"""Accuracy that a cue may add before it is warned of."""
_STRONG = 0.5
"""Cramér's V from which on a cue is warned of."""


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ClassFacts(_Facts):
    """One class."""

    name: str
    images: int
    patients: int


class CentreFacts(_Facts):
    """One way to name the centres."""

    columns: tuple[str, ...]
    kind: CentreKind
    num_centres: int
    counts: dict[str, dict[str, int]]
    """Images by centre and class, largest centre first; empty beyond MOST_CENTRES centres."""
    patients: dict[str, int]
    single_class: tuple[str, ...]
    """Centres that cannot train: they hold one class; beyond MOST_CENTRES centres, too."""
    class_from_centre: Shortcut


class CentrePictures(_Facts):
    """Pictures of one centre of the default rule."""

    images: int
    sizes: dict[str, int]
    """Images by "width x height", the most frequent first; at most five."""
    brightness_mean: float
    """Mean grey level over images, 0 to 255."""
    brightness_sd: float
    """Spread of the images' mean grey levels."""


class PictureFacts(_Facts):
    """What the pixels tell."""

    images: int
    unreadable_rows: tuple[int, ...]
    """Row numbers; missing files included."""
    by_centre: dict[str, CentrePictures]
    centre_from_size: Shortcut | None
    """Absent where the default rule has fewer than two centres."""
    class_from_size: Shortcut
    near_duplicates: NearDuplicates


class Inspection(_Facts):
    """Everything `semc-sim inspect` shows."""

    cohort: str
    task: str
    licence: str
    images: int
    patients: int
    ungrouped_images: int
    """Images without a patient or stream key."""
    splits: dict[str, int]
    """Images by official split; "open" where a site will cut it."""
    patients_in_two_splits: int
    classes: tuple[ClassFacts, ...]
    centres: tuple[CentreFacts, ...]
    """The first is the default."""
    pictures: PictureFacts | None
    """Absent where pictures were not asked for or there are none."""
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def inspect_source(
    sources: Sequence[Path],
    *,
    cohort: str | None = None,
    task: str | None = None,
    view_source: ViewSource = "tag",
    images: bool = True,
) -> Inspection:
    """Inspect a folder in any known layout, or several joined on their shared classes.

    Args:
        sources: The folders.
        cohort: Name of their layout; None = recognise it.
        task: What the labels tell; None = the cohort's default.
        view_source: FPUS23's views by tag or by folder.
        images: Decode the pictures, too; a source that holds none is described by its table.

    Raises:
        SemcError: What the cohort's reader refuses.
    """
    options = CohortOptions(task, view_source)
    table = read_tables(sources, cohort, options).filtered()
    rows = _rows(table)
    centres = tuple(_centre_facts(table, rule, rows) for rule in table.centres)
    pictures = _pictures(table, rows) if images else None
    per_patient = rows.groupby("group")["split"].nunique()
    found = Inspection(
        cohort=table.cohort,
        task=table.task,
        licence=table.licence,
        images=len(rows),
        patients=int(rows["group"].nunique()),
        ungrouped_images=int(rows["ungrouped"].sum()),
        splits={str(name or "open"): int(size) for name, size in rows["split"].value_counts().items()},
        patients_in_two_splits=int((per_patient > 1).sum()),
        classes=tuple(
            ClassFacts(name=str(name), images=len(part), patients=int(part["group"].nunique()))
            for name, part in rows.groupby("label")
        ),
        centres=centres,
        pictures=pictures,
        notes=table.notes,
        warnings=(),
    )
    return found.model_copy(update={"warnings": tuple(_warnings(found))})


def _rows(table: CohortTable) -> pd.DataFrame:
    """Return label, group, split and default centre of every row; ungrouped images are patients of their own."""
    images = table.images
    group = images["group"] if "group" in images else pd.Series("", index=images.index)
    alone = pd.Series([f"row {number}" for number in images.index], index=images.index)
    return pd.DataFrame(
        {
            "label": images["label"],
            "group": group.where(group != "", alone),
            "ungrouped": group == "",
            "split": table.split_of(table.centres[0]),
            "centre": table.centre_of(table.centres[0]),
        }
    )


def _centre_facts(table: CohortTable, rule: CentreRule, rows: pd.DataFrame) -> CentreFacts:
    centre = table.centre_of(rule)
    names: list[str] = centre.tolist()
    images = Counter(zip(names, rows["label"].tolist(), strict=True))
    labels = sorted(set(rows["label"]))
    order = [name for name, _ in Counter(names).most_common()] if rule.columns else []
    seen = set(zip(names, rows["group"].tolist(), strict=True))
    patients = Counter(name for name, _ in seen)
    counts = {name: {label: images[name, label] for label in labels} for name in order}
    few = len(order) <= MOST_CENTRES
    return CentreFacts(
        columns=rule.columns,
        kind=rule.kind,
        num_centres=len(order),
        counts=counts if few else {},
        patients={name: patients[name] for name in order} if few else {},
        single_class=tuple(name for name, own in counts.items() if sum(map(bool, own.values())) == 1),
        class_from_centre=shortcut(centre, rows["label"], rows["group"]),
    )


def _pictures(table: CohortTable, rows: pd.DataFrame) -> PictureFacts | None:
    """Decode every picture once; None where the source holds a table only."""
    root = table.root.resolve()
    frames = table.images["frame"] if "frame" in table.images else pd.Series("0", index=rows.index)
    unreadable: list[int] = []
    sizes: dict[int, str] = {}
    brightness: dict[int, float] = {}
    hashes: list[NDArray[np.bool_]] = []
    numbers: list[int] = table.images.index.tolist()
    for row, file, frame in zip(numbers, table.images["file"], frames.tolist(), strict=True):
        try:
            pixels = read_still(locate(root, file, row), int(frame or 0), row)
        except SemcError:
            unreadable.append(row)
            continue
        sizes[row] = f"{pixels.shape[1]} x {pixels.shape[0]}"
        brightness[row] = float(pixels.mean())
        hashes.append(perceptual_hash(pixels))
    if not sizes:
        return None
    read = rows.loc[list(sizes)].assign(size=pd.Series(sizes), brightness=pd.Series(brightness))
    several = read["centre"].nunique() > 1
    return PictureFacts(
        images=len(read),
        unreadable_rows=tuple(unreadable),
        by_centre={
            str(name or "all"): CentrePictures(
                images=len(part),
                sizes={str(size): int(n) for size, n in part["size"].value_counts().head(5).items()},
                brightness_mean=float(part["brightness"].mean()),
                brightness_sd=float(part["brightness"].std(ddof=0)),
            )
            for name, part in read.groupby("centre")
        },
        centre_from_size=shortcut(read["size"], read["centre"], read["group"]) if several else None,
        class_from_size=shortcut(read["size"], read["label"], read["group"]),
        near_duplicates=near_duplicates(hashes, read),
    )


def _warnings(found: Inspection) -> list[str]:
    warnings = []
    if found.ungrouped_images:
        warnings.append(
            f"{found.ungrouped_images} images have no patient or stream: figures will not be patient-disjoint"
        )
    if found.patients_in_two_splits:
        warnings.append(f"{found.patients_in_two_splits} patients stand in two splits: a site refuses that")
    for facts in found.centres:
        by = " x ".join(facts.columns)
        cue = facts.class_from_centre
        if _strong(cue):
            warnings.append(f"the centre by {by} ({facts.kind}) {_tells(cue, 'class')}")
        if facts.single_class:
            warnings.append(
                f"by {by}, {len(facts.single_class)} of {facts.num_centres} centres hold one class only "
                "and cannot be sites"
            )
    pictures = found.pictures
    if pictures is None:
        return warnings
    if pictures.unreadable_rows:
        warnings.append(f"{len(pictures.unreadable_rows)} pictures are missing or cannot be decoded")
    for name, cue_of_size in (("centre", pictures.centre_from_size), ("class", pictures.class_from_size)):
        if cue_of_size is not None and _strong(cue_of_size):
            warnings.append(f"the image size alone {_tells(cue_of_size, name)}")
    alike = pictures.near_duplicates
    if alike.across_patients:
        warnings.append(
            f"{alike.across_patients} pairs of images of two patients look alike ({alike.borders()}): look at them"
        )
    return warnings


def _strong(cue: Shortcut) -> bool:
    return cue.gain >= _GAIN or cue.cramers_v >= _STRONG


def _tells(cue: Shortcut, target: str) -> str:
    """Tell a cue's worth; with few patients an association can be strong and of no use on the next one."""
    if cue.gain < _GAIN:
        return f"goes with the {target} (Cramér's V {cue.cramers_v:.2f})"
    return (
        f"predicts the {target} (accuracy {cue.cue_accuracy:.2f} instead of {cue.blind_accuracy:.2f} on unseen "
        f"patients, Cramér's V {cue.cramers_v:.2f})"
    )
