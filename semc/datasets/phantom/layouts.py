"""Real cohorts' layouts written by the phantom, so that the real readers run without anybody's images.

Every layout is synthetic: planes of the phantom stand under the cohort's labels. Three tables of
pictures are here, every other layout has a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from semc.datasets.phantom.config import PhantomConfig
from semc.datasets.phantom.layout_camus import write_camus
from semc.datasets.phantom.layout_dicom import write_dicom
from semc.datasets.phantom.layout_fetal_brain_planes import MACHINE_OPERATORS, write_fetal_brain_planes
from semc.datasets.phantom.layout_fpus23 import write_fpus23, write_fpus23_planes
from semc.datasets.phantom.layout_pocus_repository import write_pocus_repository
from semc.datasets.phantom.still import WrittenStill, all_frames, write_table
from semc.datasets.phantom.write import Layout, phantom_file, write_description, write_phantom
from semc.exit_codes import ExitCode, SemcError

PLANE_LABELS = {
    "head": "Fetal brain",
    "abdomen": "Fetal abdomen",
    "femur": "Fetal femur",
    "four_chamber": "Fetal thorax",
    "liver": "Maternal cervix",
    "other": "Other",
}
"""The phantom's plane to the label that stands for it in the fetal plane tables."""
_BRAIN_PLANES = ("Trans-thalamic", "Trans-cerebellum", "Trans-ventricular", "Other")
_MACHINES = ("Aloka", "Voluson E6", "Voluson S10", "Other")
_COUNTRIES = ("Algeria", "Egypt", "Malawi", "Ghana", "Uganda")
_COUNTRY_CODES = ("DZA", "EGY", "MWI", "GHA", "UGA")
_MOST_CENTRES = {
    "fetal_planes": len(_MACHINES),
    "african_planes": len(_COUNTRIES),
    "fetal_brain_planes": len(MACHINE_OPERATORS),
}
_SIZE_STEP = 16
"""Pixels by which one country's images are taller than the one's before."""


def write_layout(config: PhantomConfig, name: str, out: Path) -> list[WrittenStill]:
    """Write a phantom cohort in a real cohort's layout.

    Args:
        config: The cohort; fpus23 and camus use its numbers, sizes and seed only.
        name: One of LAYOUTS.
        out: Folder to write into; made if missing.

    Returns:
        What was written, one entry per labelled picture; files are relative to the folder of images.

    Raises:
        SemcError: USAGE for a layout that does not exist, or too many centres for it.
    """
    if name not in LAYOUTS:
        raise SemcError(
            ExitCode.USAGE, f"There is no layout '{name}'.", f"choose one of: {', '.join(LAYOUTS)}"
        )
    most = _MOST_CENTRES.get(name)
    if most is not None and len(config.all_centres()) > most:
        raise SemcError(ExitCode.USAGE, f"The layout {name} has at most {most} centres.", "ask for fewer")
    out.mkdir(parents=True, exist_ok=True)
    written = LAYOUTS[name](config, out)
    write_description(config, out)
    return written


def write_fetal_planes(config: PhantomConfig, out: Path) -> list[WrittenStill]:
    """Write FETAL_PLANES_ZENODO: `;`, padded cells, names without `.png`; each centre is a machine."""
    written, rows = [], []
    numbers: dict[str, int] = {}
    for frame in all_frames(config):
        number = numbers.setdefault(frame.patient, len(numbers) + 1)
        centre = config.all_centres().index(frame.centre)
        name = f"Patient{number:05d}_Plane{config.classes.index(frame.plane) + 1}_{frame.frame + 1}_of_9"
        still = WrittenStill(f"Images/{name}.png", frame, PLANE_LABELS[frame.plane], config)
        still.save(out / "FETAL_PLANES_ZENODO")
        brain = _BRAIN_PLANES[frame.frame % 4] if frame.plane == "head" else "Not A Brain"
        operator = f"Op. {number % 3 + 1}" if number % 4 else "Other"
        train = "1 " if frame.split == "train" else "0 "
        rows.append((name, number, still.label, brain, operator, _MACHINES[centre], train))
        written.append(still)
    header = "Image_name;Patient_num;Plane;Brain_plane;Operator;US_Machine;Train "
    write_table(out / "FETAL_PLANES_ZENODO" / "FETAL_PLANES_DB_data.csv", header, rows, ";")
    return written


def write_african_planes(config: PhantomConfig, out: Path) -> list[WrittenStill]:
    """Write the five countries: numbers restart in each, each has its own image size, four planes only."""
    written, rows = [], []
    for place, centre in enumerate(config.all_centres()):
        country, code = _COUNTRIES[place], _COUNTRY_CODES[place]
        sized = config.model_copy(update={"image_size": config.image_size + _SIZE_STEP * place})
        numbers: dict[str, int] = {}
        shown: dict[str, int] = {}
        for frame in all_frames(config):
            if frame.centre != centre or frame.plane in ("liver", "other"):
                continue
            number = numbers.setdefault(frame.patient, len(numbers) + 1)
            shown[frame.patient] = shown.get(frame.patient, -1) + 1
            name = f"patient{number:03d}_{code}_plane{shown[frame.patient]}"
            still = WrittenStill(f"{country}/{name}.png", frame, PLANE_LABELS[frame.plane], sized)
            still.save(out)
            rows.append((number, still.label, int(frame.split == "train"), country, name))
            written.append(still)
    write_table(out / "African_planes_database.csv", "Patient_num,Plane,Train,Center,Filename", rows)
    return written


def write_pocus(config: PhantomConfig, out: Path) -> list[WrittenStill]:
    """Write class folders of JPEG frames with an index; each centre is a source."""
    written, rows = [], []
    for frame in all_frames(config):
        clip = f"{frame.patient}_{frame.plane}"
        still = WrittenStill(f"{frame.plane}/{clip}_f{frame.frame:02d}.jpg", frame, frame.plane, config)
        still.save(out)
        source = config.all_centres().index(frame.centre) + 7
        rows.append((still.file, still.label, f"{clip}.mp4", source, "convex", "CC BY 4.0", frame.patient))
        written.append(still)
    write_table(out / "index.csv", "file,label,acquisition,source_id,probe,license,group", rows)
    return written


def _write_own(config: PhantomConfig, out: Path, *, layout: Layout) -> list[WrittenStill]:
    """Write one of the two layouts that the phantom is at home in."""
    write_phantom(config, out, layout=layout)
    return [
        WrittenStill(phantom_file(config, frame, layout), frame, frame.plane, config)
        for frame in all_frames(config)
    ]


LAYOUTS: dict[str, Callable[[PhantomConfig, Path], list[WrittenStill]]] = {
    "manifest": partial(_write_own, layout="manifest"),
    "lp2025": partial(_write_own, layout="lp2025"),
    "fpus23": write_fpus23,
    "fpus23_planes": write_fpus23_planes,
    "camus": write_camus,
    "camus_older": partial(write_camus, older=True),
    "fetal_planes": write_fetal_planes,
    "fetal_brain_planes": write_fetal_brain_planes,
    "african_planes": write_african_planes,
    "pocus": write_pocus,
    "pocus_repository": write_pocus_repository,
    "dicom": write_dicom,
}
"""Name to writer; each layout is read back by a real reader in the tests."""
