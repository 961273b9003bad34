"""A site's training images by patient, and the Poisson draw of patients for one private step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from semc.datasets.sample import Batch, ManifestRow
from semc.datasets.site_images import SiteImages
from semc.datasets.transforms import augment, to_tensor

Uniform = Callable[[int], NDArray[np.float64]]
"""Independent numbers in [0, 1), as many as asked for."""


class PatientPool:
    """Patients numbered from 0, each with all its frames.

    Args:
        rows: Training rows; `group` names the patient.
        images: Where their pixels come from.
        frames_per_patient: m, the most frames of a patient in one step.
    """

    def __init__(self, rows: Sequence[ManifestRow], images: SiteImages, frames_per_patient: int) -> None:
        by_group: dict[str, list[ManifestRow]] = {}
        for row in rows:
            by_group.setdefault(row.group, []).append(row)
        self._patients = [tuple(by_group[group]) for group in sorted(by_group)]
        self._images = images
        self._frames_per_patient = frames_per_patient

    @property
    def num_patients(self) -> int:
        """Patients at the site: a private number, never part of a divisor or a message."""
        return len(self._patients)

    def draw(self, rate: float, uniform: Uniform) -> list[int]:
        """Return the patients of one step, each in it with probability `rate`, independently; may be none.

        Args:
            rate: q. The accountant assumes exactly this draw; shuffling and cutting into batches is another.
            uniform: Secret numbers; one per patient is taken.
        """
        return np.flatnonzero(uniform(self.num_patients) < rate).tolist()

    def frames(self, patient: int, rng: np.random.Generator) -> tuple[ManifestRow, ...]:
        """Return a patient's rows: all, or m of them at random, in the manifest's order."""
        rows = self._patients[patient]
        if len(rows) <= self._frames_per_patient:
            return rows
        chosen = np.sort(rng.choice(len(rows), size=self._frames_per_patient, replace=False))
        return tuple(rows[place] for place in chosen)

    def load(self, rows: Sequence[ManifestRow], rng: np.random.Generator) -> Batch:
        """Return one patient's rows as a batch, augmented as the study says.

        Raises:
            SemcError: DATA_UNREADABLE or IMAGE_MODE, with the row number.
        """
        pixels = augment([self._images.image(row) for row in rows], self._images.data.augmentation, rng)
        return Batch(
            images_BCHW=to_tensor(pixels, self._images.normalisation),
            labels_B=torch.tensor([row.label for row in rows], dtype=torch.int64),
            ids_B=torch.tensor([row.index for row in rows], dtype=torch.int64),
            groups_B=torch.zeros(len(rows), dtype=torch.int64),
        )
