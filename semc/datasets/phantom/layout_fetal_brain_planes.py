"""The re-release of FETAL_PLANES_DB's brain images, drawn by the phantom: class folders and index.csv.

Three planes of the phantom stand for the three brain planes, the core; the others come along as the re-release's
images of other planes do. Each centre is a machine and its operator. Every third patient has a picture twice.
"""

from __future__ import annotations

from pathlib import Path

from semc.datasets.phantom.config import PhantomConfig
from semc.datasets.phantom.still import WrittenStill, all_frames, write_table

CORE_LABELS = {"head": "Trans-ventricular", "abdomen": "Trans-thalamic", "four_chamber": "Trans-cerebellum"}
OTHER_LABELS = {"femur": "Fetal_femur", "liver": "Maternal_cervix", "other": "Other"}
MACHINE_OPERATORS = (
    ("Voluson E6", "Op. 1"),
    ("Voluson E6", "Op. 2"),
    ("Voluson E6", "Other"),
    ("Aloka", "Op. 3"),
    ("Other", "Other"),
)
"""Machine and operator, one pair a centre."""
_HEADER = "file,label,group,patient,machine,operator,official_train,core,exact_dup_of"
_REPEATED = 3
"""Every third patient's first picture is listed a second time."""


def write_fetal_brain_planes(config: PhantomConfig, out: Path) -> list[WrittenStill]:
    """Write core and other images, with the repeats that `exact_dup_of` marks."""
    labels = CORE_LABELS | OTHER_LABELS
    written, rows = [], []
    numbers: dict[str, int] = {}
    for frame in all_frames(config):
        first = frame.patient not in numbers
        number = numbers.setdefault(frame.patient, len(numbers) + 1)
        label = labels[frame.plane]
        stem = f"Patient{number:05d}_Plane{config.classes.index(frame.plane) + 1}_{frame.frame + 1}"
        still = WrittenStill(f"{label}/{stem}_of_9.png", frame, label, config)
        stills = [still]
        if first and number % _REPEATED == 0:
            stills.append(WrittenStill(f"{label}/{stem}_of_9_again.png", frame, label, config))
        for shown in stills:
            shown.save(out)
            repeats = "" if shown is still else f"images/{Path(still.file).name}"
            machine = MACHINE_OPERATORS[config.all_centres().index(frame.centre)]
            marks = (int(frame.split == "train"), int(frame.plane in CORE_LABELS), repeats)
            rows.append((shown.file, label, f"P{number:05d}", f"P{number:05d}", *machine, *marks))
        written += stills
    write_table(out / "index.csv", _HEADER, rows)
    return written
