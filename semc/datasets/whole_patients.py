"""Patients whose every image decodes: what an evaluation may ask about where no single patient may end it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from semc.datasets.sample import ManifestRow
from semc.datasets.site_images import SiteImages
from semc.exit_codes import SemcError

log = logging.getLogger(__name__)


def whole_patients(rows: Sequence[ManifestRow], images: SiteImages) -> list[ManifestRow]:
    """Return the rows of the patients whose images all decode, so that one damaged image does not end an evaluation.

    Args:
        rows: Rows of :func:`build_private_site_data`.
        images: Where their pixels come from; keeps what it decodes.
    """
    damaged = set()
    for row in rows:
        try:
            images.image(row)
        except SemcError as error:
            log.warning("A patient is left out: %s", error.problem)
            damaged.add(row.group)
    return [row for row in rows if row.group not in damaged]
