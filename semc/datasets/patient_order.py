"""Which images stand for a whole hospital, and in which batches: spread over its patients.

One exam holds many frames of one plane from one patient; statistics of the first images of a folder would be that
exam's. Here every patient gives one image before any gives a second, and each batch mixes patients.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from semc.datasets.loader import evaluation_batches
from semc.datasets.sample import Batch, ManifestRow
from semc.datasets.site_images import SiteImages
from semc.seed import derive_seed

_BATCH_SIZE = 32


def spread_over_patients(rows: Sequence[ManifestRow], limit: int, seed: int) -> list[ManifestRow]:
    """Choose up to `limit` rows, one of every patient in turn, patients and their images in seeded order.

    The first m of a choice are the choice of m, so figures at 16, 64 and 256 images are nested.
    """
    rng = np.random.default_rng(derive_seed(seed, "patients"))
    by_patient: defaultdict[str, list[ManifestRow]] = defaultdict(list)
    for row in rows:
        by_patient[row.group].append(row)
    ranked: list[tuple[int, float, ManifestRow]] = []
    for group in sorted(by_patient):
        own = by_patient[group]
        place = rng.random()
        ranked += [(turn, place, own[k]) for turn, k in enumerate(rng.permutation(len(own)).tolist())]
    ranked.sort(key=lambda entry: entry[:2])
    return [row for _, _, row in ranked[:limit]]


def patient_halves(rows: Sequence[ManifestRow]) -> tuple[list[ManifestRow], list[ManifestRow]]:
    """Divide rows in two so that no patient is in both: patients in order of first appearance, alternately."""
    number = {group: place for place, group in enumerate(dict.fromkeys(row.group for row in rows))}
    return (
        [row for row in rows if number[row.group] % 2 == 0],
        [row for row in rows if number[row.group] % 2 == 1],
    )


def adaptation_batches(rows: Sequence[ManifestRow], images: SiteImages, *, seed: int) -> Iterator[Batch]:
    """Yield every row once, without augmentation, in batches of about one size that each mix the patients.

    A patient's images are dealt to the batches in turn, from another start with every seed. No batch holds a single
    image unless there is but one.

    Args:
        rows: E.g. of :func:`spread_over_patients`.
        images: Where their pixels come from.
        seed: Of this pass.

    Raises:
        SemcError: DATA_UNREADABLE or IMAGE_MODE, with the row number.
    """
    rng = np.random.default_rng(derive_seed(seed, "mix"))
    places = rng.random(len(rows))
    patients = {group: rng.random() for group in sorted({row.group for row in rows})}
    order = sorted(range(len(rows)), key=lambda k: (patients[rows[k].group], places[k]))
    num_batches = -(-len(rows) // _BATCH_SIZE)
    for first in range(num_batches):
        dealt = [rows[k] for k in order[first::num_batches]]
        yield from evaluation_batches(dealt, images, batch_size=len(dealt))
