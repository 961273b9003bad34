"""One phantom image written in a real cohort's layout, and what a reader must find there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semc.datasets.phantom.config import PhantomConfig
from semc.datasets.phantom.patients import PhantomFrame, plan_centre
from semc.datasets.phantom.render import render_frame

_JPEG_QUALITY = 92


@dataclass(frozen=True)
class WrittenStill:
    """A picture on disk and the frame it shows.

    Attributes:
        file: Relative to the layout's folder of images.
        frame: The phantom's frame.
        label: The label the layout gives it.
        config: The cohort it is drawn from.
        index: Place in a file of several frames, from 0.
    """

    file: str
    frame: PhantomFrame
    label: str
    config: PhantomConfig
    index: int = 0

    def pixels(self) -> NDArray[np.uint8]:
        """Draw the picture again, [H, W]."""
        return render_frame(self.config, self.frame)

    def save(self, root: Path) -> None:
        """Write the picture as PNG or JPEG, as its ending says."""
        path = root / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(self.pixels())
        if path.suffix == ".jpg":
            image.save(path, quality=_JPEG_QUALITY)
        else:
            image.save(path, compress_level=1)


def all_frames(config: PhantomConfig) -> list[PhantomFrame]:
    """Return the frames of every centre in order."""
    return [frame for centre in config.all_centres() for frame in plan_centre(config, centre)]


def write_table(path: Path, header: str, rows: Sequence[tuple[object, ...]], separator: str = ",") -> None:
    """Write a header line and rows of cells that need no quoting."""
    lines = [header, *(separator.join(str(cell) for cell in row) for row in rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
