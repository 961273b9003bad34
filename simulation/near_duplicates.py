"""Pictures that look alike but belong to two patients, splits, centres or labels: reported for a person to judge.

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
    """Pairs of them that stand in two official splits."""
    splits_open: int
    """Pairs of them of which at least one picture has no official split: a site will cut it."""
    across_centres: int | None
    """Pairs of them at two centres of the default rule, a leak where one is left out; absent without centres."""
    across_labels: int
    """Pairs of them with two labels."""
    patients_involved: int
    examples: tuple[tuple[int, int, int], ...]
    """Row, row and distance of the first pairs."""

    def borders(self) -> str:
        """Return in words which borders the pairs cross; a split that is still open is not called uncrossed."""
        words = []
        if self.splits_open < self.across_patients:
            words.append(f"{self.across_splits} across splits")
        if self.splits_open:
            words.append(f"{self.splits_open} in splits not cut yet")
        if self.across_centres is not None:
            words.append(f"{self.across_centres} across centres")
        return ", ".join([*words, f"{self.across_labels} across labels"])


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
        rows: `group`, `split`, `centre` and `label` of the images, indexed by row number; a split or centre that the
            source does not give is empty.
        max_distance: Bits that may differ.
    """
    signs_NB = np.where(np.stack(list(hashes)), np.float32(1), np.float32(-1))
    least = signs_NB.shape[1] - 2 * max_distance
    group, split, centre, label = (
        pd.factorize(rows[name])[0] for name in ("group", "split", "centre", "label")
    )
    is_open = (rows["split"] == "").to_numpy()
    numbers = rows.index.to_numpy()
    across_splits = splits_open = across_centres = across_labels = across_patients = 0
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
        uncut = is_open[i] | is_open[j]
        splits_open += int(uncut.sum())
        across_splits += int(((split[i] != split[j]) & ~uncut).sum())
        across_centres += int((centre[i] != centre[j]).sum())
        across_labels += int((label[i] != label[j]).sum())
        involved.update(group[i].tolist(), group[j].tolist())
        if len(examples) < _EXAMPLES:
            found = zip(numbers[i].tolist(), numbers[j].tolist(), distance.tolist(), strict=True)
            examples += list(found)[: _EXAMPLES - len(examples)]
    return NearDuplicates(
        max_distance=max_distance,
        across_patients=across_patients,
        across_splits=across_splits,
        splits_open=splits_open,
        across_centres=across_centres if (rows["centre"] != "").any() else None,
        across_labels=across_labels,
        patients_involved=len(involved),
        examples=tuple(examples),
    )
