"""The lung ultrasound repository as its curators keep it, drawn by the phantom: a table of clips and stills.

Clips are AVI or GIF, stills PNG or JPEG. As upstream, the table leaves a clip's ending out, spells folders with other
capitals than the disk, numbers patients anew in every source, and lists clips that are not there.
"""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from semc.datasets.phantom.config import PhantomConfig
from semc.datasets.phantom.patients import PhantomFrame
from semc.datasets.phantom.still import WrittenStill, all_frames, write_table

_HEADER = "Date added,Current location,Filename,Label,License,Probe,Source ID,Patient ID / Name"
_DATE, _LICENCE = "20.04.20", "CC BY 4.0"
_FIRST_SOURCE = 7
_FRAMES_PER_CLIP = 6
"""A reader takes no more frames of a clip, so further frames are another clip of the patient."""
_QUALITY = 95
_PROBES = ("Convex", "Linear")


def write_pocus_repository(config: PhantomConfig, out: Path) -> list[WrittenStill]:
    """Write one patient in three as AVI clips, one as GIF clips, one as stills; each centre is a source."""
    written: list[WrittenStill] = []
    rows: list[tuple[object, ...]] = []
    numbers: dict[str, int] = {}
    for (centre, patient, plane), shared in groupby(
        sorted(all_frames(config), key=lambda frame: (frame.centre, frame.patient, frame.plane, frame.frame)),
        key=lambda frame: (frame.centre, frame.patient, frame.plane),
    ):
        source = config.all_centres().index(centre) + _FIRST_SOURCE
        number = numbers.setdefault(patient, sum(name.startswith(f"{centre}-") for name in numbers) + 1)
        kind = ("avi", "gif", "still")[number % 3]
        probe = _PROBES[number % 2]
        place = f"pocus_{'images' if kind == 'still' else 'videos'}"
        for part, frames in enumerate(_parts(list(shared), 1 if kind == "still" else _FRAMES_PER_CLIP)):
            name = f"Src{source}-{plane}-{number:04d}+{part}"
            ending = ("png", "jpg")[part % 2] if kind == "still" else kind
            file = f"{place}/{probe.lower()}/{name}.{ending}"
            stills = [WrittenStill(file, frame, plane, config, at) for at, frame in enumerate(frames)]
            _save(stills, out / "data")
            named = f"{name}.{ending}" if kind == "still" else name
            rows.append((_DATE, f"data/{place}/{probe}", named, plane, _LICENCE, probe, source, number))
            written += stills
    rows.append((_DATE, "not used", "Gone", config.classes[0], _LICENCE, _PROBES[0], _FIRST_SOURCE, 1))
    write_table(out / "data" / "dataset_metadata.csv", _HEADER, rows)
    return written


def _parts(frames: list[PhantomFrame], size: int) -> list[list[PhantomFrame]]:
    return [frames[place : place + size] for place in range(0, len(frames), size)]


def _save(stills: list[WrittenStill], root: Path) -> None:
    """Write the frames of one file."""
    path = root / stills[0].file
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix not in (".avi", ".gif"):
        stills[0].save(root)
        return
    pictures = [still.pixels() for still in stills]
    if path.suffix == ".gif":
        first, *others = [Image.fromarray(picture) for picture in pictures]
        first.save(path, save_all=True, append_images=others)
        return
    height, width = pictures[0].shape
    clip = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (width, height))
    clip.set(cv2.VIDEOWRITER_PROP_QUALITY, _QUALITY)
    for picture in pictures:
        clip.write(np.repeat(picture[..., None], 3, axis=-1))
    clip.release()
