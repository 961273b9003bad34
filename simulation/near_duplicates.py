"""Pictures that look alike but belong to two patients, splits or labels: reported for a person to judge.

Perceptual hashes (256 bits of the low frequencies) are compared all with all as one matrix product in blocks:
with hashes as +1 and -1, a product of two is 256 minus twice their Hamming distance. Nothing is ever merged for
being alike: pictures of two patients can be.
"""

from __future__ import annotations

from collections.abc import Sequence

import imagehash
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict

HASH_SIDE = 16
MAX_DISTANCE = 20
"""Bits of HASH_SIDE squared that may differ. On real fetal brain planes copies are at 0 and the nearest two patients
at 52; on lung frames the nearest two groups are at 50 and neighbouring frames of one clip start at 16."""
_BLOCK = 1024
_EXAMPLES = 20


class NearDuplicates(BaseModel):
    """Pairs of images that look alike across a border they should not cross."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_distance: int
    """Bits out of 256 that two hashes may differ in."""
    across_patients: int
    """Pairs of two patients or streams."""
    across_splits: int
    """Pairs of them that stand in two splits."""
    across_labels: int
    """Pairs of them with two labels."""
    patients_involved: int
    examples: tuple[tuple[int, int, int], ...]
    """Row, row and distance of the first pairs."""


def perceptual_hash(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the picture's hash, HASH_SIDE squared bits."""
    found = imagehash.phash(Image.fromarray(pixels), hash_size=HASH_SIDE).hash
    return np.asarray(found, dtype=np.bool_).ravel()


def near_duplicates(
    hashes: Sequence[NDArray[np.bool_]], rows: pd.DataFrame, max_distance: int = MAX_DISTANCE
) -> NearDuplicates:
    """Find pairs across patients.

    Args:
        hashes: One per row of `rows`.
        rows: `group`, `split` and `label` of the images, indexed by row number.
        max_distance: Bits that may differ.
    """
    signs_NB = np.where(np.stack(list(hashes)), np.float32(1), np.float32(-1))
    least = signs_NB.shape[1] - 2 * max_distance
    group, split, label = (pd.factorize(rows[name])[0] for name in ("group", "split", "label"))
    numbers = rows.index.to_numpy()
    across_splits = across_labels = across_patients = 0
    involved: set[int] = set()
    examples: list[tuple[int, int, int]] = []
    for first in range(0, len(signs_NB), _BLOCK):
        products = signs_NB[first : first + _BLOCK] @ signs_NB[first:].T
        i, j = np.nonzero(products >= least)
        distance = (signs_NB.shape[1] - products[i, j]).astype(int) // 2
        i, j = i + first, j + first
        foreign = (i < j) & (group[i] != group[j])
        i, j, distance = i[foreign], j[foreign], distance[foreign]
        across_patients += len(i)
        across_splits += int((split[i] != split[j]).sum())
        across_labels += int((label[i] != label[j]).sum())
        involved.update(group[i].tolist(), group[j].tolist())
        if len(examples) < _EXAMPLES:
            found = zip(numbers[i].tolist(), numbers[j].tolist(), distance.tolist(), strict=True)
            examples += list(found)[: _EXAMPLES - len(examples)]
    return NearDuplicates(
        max_distance=max_distance,
        across_patients=across_patients,
        across_splits=across_splits,
        across_labels=across_labels,
        patients_involved=len(involved),
        examples=tuple(examples),
    )
