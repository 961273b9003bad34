"""Rows to batches: seeded, the same for any number of workers, nothing dropped.

Batch number t of a stream is a function of (rows, seed, t): its epoch's order and its augmentation come from
seed streams named by epoch and step, never from a generator's running state.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from semc.datasets.sample import Batch, ManifestRow
from semc.datasets.site_images import SiteImages
from semc.datasets.transforms import augment, to_tensor
from semc.exit_codes import SemcError
from semc.seed import derive_seed


def steps_per_epoch(num_rows: int, batch_size: int) -> int:
    """Return the batches of one pass; a remainder of one image joins the last full batch."""
    full, rest = divmod(num_rows, batch_size)
    return max(1, full + (rest > 1))


def training_batches(
    rows: Sequence[ManifestRow],
    images: SiteImages,
    *,
    batch_size: int,
    num_steps: int | None,
    seed: int,
    workers: int = 0,
    first_step: int = 0,
) -> Iterator[Batch]:
    """Yield augmented batches from an endless, per epoch reshuffled stream, cut at `num_steps`.

    Args:
        rows: Training rows.
        images: Where their pixels come from; filled first where worker processes share it.
        batch_size: Images per batch; an epoch's last batch may be smaller, or larger by one.
        num_steps: Batches of the whole stream; None = one epoch.
        seed: Of this stream, e.g. derived from study seed, site and round.
        workers: Processes that decode and augment; neither the batches nor torch's generator depend on it.
        first_step: Batches left out at the stream's beginning, without making them.

    Raises:
        SemcError: DATA_UNREADABLE or IMAGE_MODE, with the row number.
    """
    steps = steps_per_epoch(len(rows), batch_size) if num_steps is None else num_steps
    stream = _TrainingStream(rows, images, batch_size, steps, seed)
    if workers == 0:
        for step in range(first_step, steps):
            yield stream[step]
        return
    images.warm(rows)
    loader = DataLoader(
        _ErrorsAsValues(stream),
        batch_size=None,
        sampler=range(first_step, steps),
        num_workers=workers,
        # Its workers' seed, which no batch uses, would otherwise be drawn from the generator the network draws from.
        generator=torch.Generator(),
    )
    for batch in loader:
        if isinstance(batch, SemcError):
            raise batch
        yield batch


def evaluation_batches(
    rows: Sequence[ManifestRow], images: SiteImages, *, batch_size: int = 32
) -> Iterator[Batch]:
    """Yield every row once, in order, without augmentation; arguments as in :func:`training_batches`."""
    groups = _dense_groups(rows)
    for first in range(0, len(rows), batch_size):
        places = list(range(first, min(first + batch_size, len(rows))))
        pixels = [images.image(rows[place]) for place in places]
        yield _batch(rows, groups, places, pixels, images)


class _TrainingStream(Dataset[Batch]):
    """Batches of a training stream by number."""

    def __init__(
        self,
        rows: Sequence[ManifestRow],
        images: SiteImages,
        batch_size: int,
        num_steps: int,
        seed: int,
    ) -> None:
        self._rows, self._images = rows, images
        self._batch_size, self._num_steps, self._seed = batch_size, num_steps, seed
        self._groups = _dense_groups(rows)
        self._per_epoch = steps_per_epoch(len(rows), batch_size)
        self._order: tuple[int, NDArray[np.intp]] = (-1, np.empty(0, dtype=np.intp))

    def __len__(self) -> int:
        return self._num_steps

    def __getitem__(self, step: int) -> Batch:
        epoch, number = divmod(step, self._per_epoch)
        if self._order[0] != epoch:
            rng = np.random.default_rng(derive_seed(self._seed, "order", epoch))
            self._order = (epoch, rng.permutation(len(self._rows)))
        first = number * self._batch_size
        last = None if number == self._per_epoch - 1 else first + self._batch_size
        places = self._order[1][first:last].tolist()
        pixels = [self._images.image(self._rows[place]) for place in places]
        rng = np.random.default_rng(derive_seed(self._seed, "augmentation", step))
        augmented = augment(pixels, self._images.data.augmentation, rng)
        return _batch(self._rows, self._groups, places, augmented, self._images)


class _ErrorsAsValues(Dataset[Batch | SemcError]):
    """A stream whose SemcError is returned: torch makes a worker's exception anew and would lose code and row."""

    def __init__(self, stream: _TrainingStream) -> None:
        self._stream = stream

    def __len__(self) -> int:
        return len(self._stream)

    def __getitem__(self, step: int) -> Batch | SemcError:
        try:
            return self._stream[step]
        except SemcError as error:
            return error


def _dense_groups(rows: Sequence[ManifestRow]) -> dict[str, int]:
    return {group: number for number, group in enumerate(sorted({row.group for row in rows}))}


def _batch(
    rows: Sequence[ManifestRow],
    groups: dict[str, int],
    places: Sequence[int],
    pixels: Sequence[NDArray[np.uint8]],
    images: SiteImages,
) -> Batch:
    chosen = [rows[place] for place in places]
    return Batch(
        images_BCHW=to_tensor(pixels, images.normalisation),
        labels_B=torch.tensor([row.label for row in chosen], dtype=torch.int64),
        ids_B=torch.tensor([row.index for row in chosen], dtype=torch.int64),
        groups_B=torch.tensor([groups[row.group] for row in chosen], dtype=torch.int64),
    )
