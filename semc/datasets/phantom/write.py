"""Writing a phantom cohort to disk: images, one manifest for all centres, and a description for reports."""

from __future__ import annotations

import csv
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from semc.datasets.phantom.config import PhantomConfig
from semc.datasets.phantom.patients import PhantomFrame, class_shares, plan_centre
from semc.datasets.phantom.render import render_frame, style_of

MANIFEST_COLUMNS = ("file", "label", "group", "site", "split", "acquisition", "device", "frame")
DESCRIPTION = "phantom.json"
_CHUNK = 32

Layout = Literal["manifest", "lp2025"]


def write_phantom(config: PhantomConfig, out: Path, *, layout: Layout = "manifest", workers: int = 1) -> Path:
    """Draw every image of a cohort and write it.

    Args:
        config: The cohort.
        out: Folder to write into; made if missing.
        layout: `manifest` = <centre>/<file> with manifest.csv for all centres; `lp2025` =
            {train,test}/<class>/<file>, which keeps neither patients nor centres.
        workers: Processes that draw; the images do not depend on it.

    Returns:
        The manifest's path, or `out` for layout lp2025.
    """
    frames = [frame for centre in config.all_centres() for frame in plan_centre(config, centre)]
    files = {frame: phantom_file(config, frame, layout) for frame in frames}
    for folder in {str(Path(name).parent) for name in files.values()}:
        (out / folder).mkdir(parents=True, exist_ok=True)
    jobs = [
        [(frame, files[frame]) for frame in frames[i : i + _CHUNK]] for i in range(0, len(frames), _CHUNK)
    ]
    draw = partial(_write_frames, config, out)
    if workers > 1 and len(jobs) > 1:
        # fork: a spawned process would import torch anew, which costs more than it draws
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as pool:
            list(pool.map(draw, jobs))
    else:
        for job in jobs:
            draw(job)
    write_description(config, out)
    if layout == "lp2025":
        return out
    manifest = out / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(MANIFEST_COLUMNS)
        writer.writerows(_manifest_rows(frames, files))
    return manifest


def write_description(config: PhantomConfig, out: Path) -> None:
    """Write the file that marks a folder of images as synthetic."""
    (out / DESCRIPTION).write_text(json.dumps(describe_phantom(config), indent=2) + "\n", encoding="utf-8")


def describe_phantom(config: PhantomConfig) -> dict[str, Any]:
    """Return what a report says of a cohort: that it is synthetic, its settings, styles and class shares."""
    return {
        "synthetic": True,
        "note": "Procedural phantom: for testing methods, nothing clinical.",
        "config": config.model_dump(mode="json"),
        "centres": {
            centre: {
                "style": asdict(style_of(config, centre)),
                "class_shares": dict(zip(config.classes, class_shares(config, centre).tolist(), strict=True)),
            }
            for centre in config.all_centres()
        },
    }


def _manifest_rows(
    frames: list[PhantomFrame], files: dict[PhantomFrame, str]
) -> Iterator[tuple[str, str, str, str, str, str, str, int]]:
    for frame in frames:
        acquisition = f"{frame.patient}-{frame.plane}"
        row = (frame.plane, frame.patient, frame.centre, frame.split, acquisition, f"phantom-{frame.centre}")
        yield (files[frame], *row, frame.frame)


def phantom_file(config: PhantomConfig, frame: PhantomFrame, layout: Layout) -> str:
    """Return a frame's file, relative to the cohort's folder."""
    suffix = "png" if style_of(config, frame.centre).jpeg_quality is None else "jpg"
    name = f"{frame.patient}_{frame.plane}_{frame.frame:02d}.{suffix}"
    return f"{frame.split}/{frame.plane}/{name}" if layout == "lp2025" else f"{frame.centre}/{name}"


def _write_frames(config: PhantomConfig, out: Path, job: list[tuple[PhantomFrame, str]]) -> None:
    for frame, name in job:
        image = Image.fromarray(render_frame(config, frame))
        quality = style_of(config, frame.centre).jpeg_quality
        if quality is None:
            image.save(out / name, compress_level=1)
        else:
            image.save(out / name, quality=quality)
