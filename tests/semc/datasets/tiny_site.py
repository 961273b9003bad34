"""A hospital's folder in a few lines: images by row, a manifest, the two data sections that read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from semc.config import DataConfig, SiteDataConfig

CLASSES = ("head", "abdomen", "femur")
DATA = DataConfig(classes=CLASSES, image_size=32, augmentation="none")


def write_image(path: Path, seed: int, mode: str = "L", size: tuple[int, int] = (40, 36)) -> None:
    """Write a noise image, different for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


def write_site(
    root: Path, rows: list[tuple[str, ...]], header: str = "file,label,group", images: bool = True
) -> SiteDataConfig:
    """Write a manifest of `rows` and an image for every first cell."""
    root.mkdir(parents=True, exist_ok=True)
    separator = ";" if ";" in header else ","
    lines = [header, *(separator.join(row) for row in rows)]
    (root / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if images:
        for number, row in enumerate(rows):
            write_image(root / row[0].strip(), number)
    return SiteDataConfig(root=root)


def patients(num_patients: int, frames: int = 3) -> list[tuple[str, str, str]]:
    """Rows of patients p0, p1, ... with one class each, in turn."""
    return [
        (f"p{patient}_{frame}.png", CLASSES[patient % len(CLASSES)], f"p{patient}")
        for patient in range(num_patients)
        for frame in range(frames)
    ]
