"""Decoded images kept in memory across rounds, bounded; what does not fit is decoded again.

Training reads every image once per epoch, in a new order. Under that pattern evicting the least recently used
image would throw out exactly what is needed next, so the first images that fit are kept and stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semc.config.data import DataConfig
from semc.config.site import SiteDataConfig
from semc.datasets.decode import decode_image
from semc.datasets.sample import ManifestRow
from semc.datasets.transforms import prepare

_Key = tuple[Path, int, bool, str]


class DecodedCache:
    """Prepared images (CLAHE and resize done) by file and preparation.

    Args:
        max_bytes: Most memory for pixels.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._images: dict[_Key, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self._images)

    def image(self, row: ManifestRow, data: DataConfig, site: SiteDataConfig) -> NDArray[np.uint8]:
        """Return a row's prepared image, uint8 [S, S] or [S, S, 3]; never to be written to.

        Raises:
            SemcError: DATA_UNREADABLE or IMAGE_MODE, with the row number.
        """
        key = (row.path, data.image_size, data.clahe, data.image_mode)
        cached = self._images.get(key)
        if cached is not None:
            return cached
        image = prepare(decode_image(row, data, site), data)
        if self.used_bytes + image.nbytes <= self.max_bytes:
            image.setflags(write=False)
            self._images[key] = image
            self.used_bytes += image.nbytes
        return image

    def warm(self, rows: Iterable[ManifestRow], data: DataConfig, site: SiteDataConfig) -> None:
        """Decode rows until the memory is full."""
        for row in rows:
            if self.used_bytes >= self.max_bytes:
                return
            self.image(row, data, site)
