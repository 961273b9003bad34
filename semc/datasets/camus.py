"""CAMUS echocardiography: NIfTI or MetaImage stills of two views at end diastole and end systole.

One hospital and one scanner family, so there are no centres by default: what can shift is quality and frame
rate. Sequences are optional; where a still is missing its frame is taken from the view's sequence, whose frames
are counted from 1 in the cfg file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from semc.datasets.cohort_table import CentreRule, CohortOptions, CohortReader, CohortTable, table_from
from semc.exit_codes import ExitCode, SemcError

LABEL_RULES = ("view_phase", "view", "quality")
VIEWS = ("2CH", "4CH")
PHASES = ("ED", "ES")
QUALITIES = ("Poor", "Medium", "Good")
SUBGROUPS = {"train": "training", "val": "validation", "test": "testing"}
"""Our split to the name of its official subgroup file."""
NIFTI_FOLDER = "database_nifti"
SPLIT_FOLDER = "database_split"
OLDER_FOLDERS = {"train": "training", "test": "testing"}
"""Our split to the older layout's folder; its patient numbers restart in the second."""
_BANDS = 20
"""Width of a band of frame rates, frames per second."""


class ViewInfo(BaseModel):
    """A view's cfg file; other keys (sex, age, ejection fraction) are not read."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    ED: int = Field(ge=1)
    """Frame of end diastole, counted from 1; may come after ES."""
    ES: int = Field(ge=1)
    ImageQuality: Literal["Good", "Medium", "Poor"]
    FrameRate: float | None = Field(default=None, gt=0)


@dataclass(frozen=True)
class _Patient:
    number: int
    """Place among all patients, from 1, for messages."""
    folder: Path
    group: str
    split: str
    suffix: str
    sequence: str
    """Name of the view's sequence in this layout."""


def is_camus(root: Path) -> bool:
    """Tell whether a folder has either public layout."""
    return _nifti(root) is not None or any(_older(root))


def read_camus(root: Path, options: CohortOptions) -> CohortTable:
    """List the labelled stills by patient, view and phase.

    Raises:
        SemcError: DATA_NOT_FOUND, DATA_UNREADABLE (a still without a sequence to take it from),
            MANIFEST_INVALID (a cfg or subgroup file that does not read) or SPLIT_LEAK.
    """
    rule = options.task or LABEL_RULES[0]
    nifti = _nifti(root)
    patients = _older(root) if nifti is None else _current(nifti)
    records = [record for patient in patients for record in _stills(root, patient, rule)]
    centres = [CentreRule(), CentreRule(("frame_rate",), "acquisition")]
    if rule != "quality":
        centres.insert(1, CentreRule(("patient_quality",), "acquisition"))
    return CohortTable(
        cohort="camus",
        task=rule,
        root=root,
        images=table_from(records),
        centres=tuple(centres),
        licence="CC BY-NC-SA 4.0 (unverified): do not redistribute",
        notes=(
            "one hospital, one scanner family: no centre here is a second hospital",
            "the published SEMC figure does not say which labels it used: 82.13 is not a target",
        ),
    )


def _current(base: Path) -> Iterator[_Patient]:
    """Yield the patients of the NIfTI layout with their official subgroup."""
    split_of: dict[str, str] = {}
    for split, name in SUBGROUPS.items():
        path = base.parent / SPLIT_FOLDER / f"subgroup_{name}.txt"
        for line, patient in enumerate(path.read_text("utf-8").split() if path.is_file() else [], start=1):
            if split_of.setdefault(patient, split) != split:
                raise SemcError(
                    ExitCode.SPLIT_LEAK,
                    f"Line {line} of subgroup_{name}.txt names a patient of another subgroup.",
                    "restore the subgroup files from the download",
                )
    for number, folder in enumerate(_patient_folders(base), start=1):
        if split_of and folder.name not in split_of:
            raise _invalid(f"Patient folder {number} is in no official subgroup")
        split = split_of.get(folder.name, "")
        yield _Patient(number, folder, folder.name, split, ".nii.gz", "half_sequence")


def _older(root: Path) -> Iterator[_Patient]:
    """Yield the patients of the MetaImage layout; the test folder's numbers are another count."""
    number = 0
    for split, name in OLDER_FOLDERS.items():
        for folder in _patient_folders(root / name):
            number += 1
            group = folder.name if split == "train" else f"{name}/{folder.name}"
            yield _Patient(number, folder, group, split, ".mhd", "sequence")


def _stills(root: Path, patient: _Patient, rule: str) -> Iterator[dict[str, object]]:
    infos = {view: _view_info(patient, view) for view in VIEWS}
    worst = min((info.ImageQuality for info in infos.values()), key=QUALITIES.index)
    for view, info in infos.items():
        for phase, frame in zip(PHASES, (info.ED, info.ES), strict=True):
            stem = f"{patient.folder.name}_{view}_"
            still, index = patient.folder / f"{stem}{phase}{patient.suffix}", 0
            if not still.is_file():
                still, index = patient.folder / f"{stem}{patient.sequence}{patient.suffix}", frame - 1
            if not still.is_file():
                raise SemcError(
                    ExitCode.DATA_UNREADABLE,
                    f"Patient folder {patient.number} lacks the {view} {phase} still and its sequence.",
                    "complete the download",
                )
            labels = {"view_phase": f"{view}_{phase}", "view": view, "quality": info.ImageQuality}
            yield {
                "file": still.relative_to(root).as_posix(),
                "label": labels[rule],
                "group": patient.group,
                "split": patient.split,
                "acquisition": f"{patient.group}_{view}",
                "frame": index,
                "view": view,
                "phase": phase,
                "quality": info.ImageQuality,
                "patient_quality": worst,
                "frame_rate": _band(info.FrameRate if view == VIEWS[0] else infos[VIEWS[0]].FrameRate),
            }


def _view_info(patient: _Patient, view: str) -> ViewInfo:
    path = patient.folder / f"Info_{view}.cfg"
    try:
        pairs = (line.partition(":") for line in path.read_text(encoding="utf-8").splitlines())
        return ViewInfo.model_validate({key.strip(): value.strip() for key, _, value in pairs})
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise _invalid(f"Info_{view}.cfg of patient folder {patient.number} does not read") from error


def _band(rate: float | None) -> str:
    """Return the band of a patient's frame rate (that of the two-chamber view)."""
    if rate is None:
        return "unknown"
    low = int(rate // _BANDS) * _BANDS
    return f"{low}-{low + _BANDS} fps"


def _nifti(root: Path) -> Path | None:
    bases = (root / NIFTI_FOLDER, root / "CAMUS_public" / NIFTI_FOLDER)
    return next((base for base in bases if base.is_dir()), None)


def _patient_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("patient*") if path.is_dir())


def _invalid(problem: str) -> SemcError:
    return SemcError(ExitCode.MANIFEST_INVALID, f"{problem}.", "restore it from the download")


CAMUS = CohortReader("camus", is_camus, read_camus, LABEL_RULES)
