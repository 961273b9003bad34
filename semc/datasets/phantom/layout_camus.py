"""CAMUS's two public layouts, drawn by the phantom: NIfTI with subgroup files, or MetaImage with two folders.

Four planes stand for the four labels. End systole comes before end diastole in every second patient; every third
has sequences, and `sequences_only` leaves the stills out, so that a reader needs the frame numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from semc.datasets.phantom.config import PhantomConfig
from semc.datasets.phantom.patients import PhantomFrame
from semc.datasets.phantom.still import WrittenStill

CENTRE = "camus"
PLANE_OF_LABEL = {"2CH_ED": "head", "2CH_ES": "abdomen", "4CH_ED": "four_chamber", "4CH_ES": "liver"}
_QUALITIES = ("Good", "Medium", "Poor")
_NUM_FRAMES = 5
_SPACING = (0.308, 0.154)


def write_camus(
    config: PhantomConfig, out: Path, *, older: bool = False, sequences_only: bool = False
) -> list[WrittenStill]:
    """Write `patients_per_centre` training and `test_patients_per_centre` test patients, four stills each.

    Args:
        config: Numbers, size and seed; its centres and classes are not used.
        out: Folder of the layout.
        older: MetaImage in training/ and testing/ instead of NIfTI with subgroup files.
        sequences_only: Write sequences for all and no stills.
    """
    styled = config.model_copy(update={"centre_names": (CENTRE,), "reserved_centre": False})
    subgroups: dict[str, list[str]] = {"training": [], "validation": [], "testing": []}
    written: list[WrittenStill] = []
    for number in range(config.patients_per_centre + config.test_patients_per_centre):
        test = number >= config.patients_per_centre
        shown = number - config.patients_per_centre if test and older else number
        name = f"patient{shown + 1:04d}"
        subgroup = "testing" if test else "validation" if number % 5 == 4 else "training"
        subgroups[subgroup].append(name)
        base = f"{'testing' if test else 'training'}" if older else "CAMUS_public/database_nifti"
        for view in ("2CH", "4CH"):
            folder = out / base / name
            folder.mkdir(parents=True, exist_ok=True)
            phases = _phases(number)
            _write_info(
                folder / f"Info_{view}.cfg", phases, _QUALITIES[(number + (view == "4CH")) % 3], number
            )
            stills = list(
                _stills(styled, number, view, f"{base}/{name}/{name}_{view}", older=older, test=test)
            )
            written += [
                _in_sequence(still, phases, view, older=older) if sequences_only else still
                for still in stills
            ]
            if sequences_only or number % 3 == 0:
                sequence = _sequence(stills, phases, number, view)
                kind = "sequence.mhd" if older else "half_sequence.nii.gz"
                _write(sequence, folder / f"{name}_{view}_{kind}")
            if not sequences_only:
                for still in stills:
                    _write(still.pixels(), out / still.file)
                    mask = out / still.file.replace("_ED.", "_ED_gt.").replace("_ES.", "_ES_gt.")
                    _write(np.zeros_like(still.pixels()), mask)
    if not older:
        folder = out / "CAMUS_public" / "database_split"
        folder.mkdir(parents=True)
        for subgroup, names in subgroups.items():
            (folder / f"subgroup_{subgroup}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    return written


def _phases(number: int) -> dict[str, int]:
    """Return the frames of both phases, counted from 1; systole first in every second patient."""
    return {"ED": 4, "ES": 2} if number % 2 else {"ED": 1, "ES": _NUM_FRAMES}


def _stills(
    config: PhantomConfig, number: int, view: str, stem: str, *, older: bool, test: bool
) -> Iterator[WrittenStill]:
    for phase in ("ED", "ES"):
        label = f"{view}_{phase}"
        frame = PhantomFrame(CENTRE, f"p{number:04d}", PLANE_OF_LABEL[label], 0, "test" if test else "train")
        yield WrittenStill(f"{stem}_{phase}.{'mhd' if older else 'nii.gz'}", frame, label, config)


def _in_sequence(still: WrittenStill, phases: dict[str, int], view: str, *, older: bool) -> WrittenStill:
    """Return where a still lies when only its sequence is written."""
    stem = still.file.partition(f"_{view}_")[0]
    kind = "sequence.mhd" if older else "half_sequence.nii.gz"
    index = phases[still.label.removeprefix(f"{view}_")] - 1
    return WrittenStill(f"{stem}_{view}_{kind}", still.frame, still.label, still.config, index)


def _sequence(
    stills: list[WrittenStill], phases: dict[str, int], number: int, view: str
) -> NDArray[np.uint8]:
    """Return a sequence [T, H, W] with the stills at their phases and other pictures between."""
    frames_THW = np.stack([np.roll(stills[0].pixels(), 3 + place, axis=1) for place in range(_NUM_FRAMES)])
    for still in stills:
        frames_THW[phases[still.label.removeprefix(f"{view}_")] - 1] = still.pixels()
    return frames_THW


def _write_info(path: Path, phases: dict[str, int], quality: str, number: int) -> None:
    lines = [f"{phase}: {frame}" for phase, frame in phases.items()]
    lines += [f"NbFrame: {_NUM_FRAMES}", "Sex: F", "Age: 56", f"ImageQuality: {quality}", "EF: 55.0"]
    lines.append(f"FrameRate: {35 + 20 * (number % 3)}.5")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write(pixels: NDArray[np.uint8], path: Path) -> None:
    itk: Any = SimpleITK
    image = itk.GetImageFromArray(pixels)
    image.SetSpacing((*_SPACING, 1.0)[: pixels.ndim])
    itk.WriteImage(image, str(path))
