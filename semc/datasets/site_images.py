"""A site's images as a study wants them, kept in memory across rounds up to a bound; the rest is decoded again.

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
from semc.datasets.transforms import normalisation_of, prepare

_BYTES_PER_MIB = 1 << 20


class SiteImages:
    """Prepared images (CLAHE and resize done) by file; what every batch of a site and study is made from.

    Args:
        data: The study's image size, augmentation, normalisation.
        site: The site's limits on image files, and its memory for pixels (`cache_mb`).
        weights: `model.weights` of the study, for the normalisation.
    """

    def __init__(self, data: DataConfig, site: SiteDataConfig, weights: str = "none") -> None:
        self.data, self.site = data, site
        self.normalisation = normalisation_of(data, weights)
        """Mean and standard deviation of the network's input."""
        self.max_bytes = site.cache_mb * _BYTES_PER_MIB
        """Most memory for pixels."""
        self.used_bytes = 0
        self._kept: dict[Path, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def image(self, row: ManifestRow) -> NDArray[np.uint8]:
        """Return a row's prepared image, uint8 [S, S] or [S, S, 3]; never to be written to.

        Raises:
            SemcError: DATA_UNREADABLE or IMAGE_MODE, with the row number.
        """
        kept = self._kept.get(row.path)
        if kept is not None:
            return kept
        image = prepare(decode_image(row, self.data, self.site), self.data)
        if self.used_bytes + image.nbytes <= self.max_bytes:
            image.setflags(write=False)
            self._kept[row.path] = image
            self.used_bytes += image.nbytes
        return image

    def warm(self, rows: Iterable[ManifestRow]) -> None:
        """Decode rows until the memory is full."""
        for row in rows:
            if self.used_bytes >= self.max_bytes:
                return
            self.image(row)
