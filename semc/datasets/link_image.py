"""An image put into a second folder without a second copy where the file system allows it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def link_image(source: Path, target: Path) -> None:
    """Put an image into a folder: a hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
