"""What travels along the image's journey: a manifest's row, a batch, a site's split data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class SourceRow:
    """One image as its source lists it; its split may still be open."""

    index: int
    """Number of the row as a spreadsheet shows it (the header is row 1); names the image in every message."""
    path: Path
    label: int
    """Study-wide class id."""
    group: str
    """Patient, stream or clip, unique within the site."""
    split: Split | None
    centre: str
    acquisition: str
    device: str
    frame: int


@dataclass(frozen=True)
class ManifestRow:
    """One image of a site, in its split."""

    index: int
    """Row number in the site's manifest; the image's id."""
    path: Path
    label: int
    """Study-wide class id."""
    group: str
    split: Split
    centre: str
    acquisition: str
    device: str
    frame: int


@dataclass(frozen=True)
class Batch:
    """One step's images with what the objective may know of them."""

    images_BCHW: Tensor
    """float32, normalised, C = 3."""
    labels_B: Tensor
    """int64 study-wide class ids."""
    ids_B: Tensor
    """int64 row numbers of the manifest."""
    groups_B: Tensor
    """int64 dense ids of the patients among the rows the batches are drawn from."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`."""
        return Batch(
            self.images_BCHW.to(device, non_blocking=True),
            self.labels_B.to(device),
            self.ids_B.to(device),
            self.groups_B.to(device),
        )


@dataclass(frozen=True)
class SiteData:
    """A site's rows by split; lists only, no pixels."""

    train: tuple[ManifestRow, ...]
    validation: tuple[ManifestRow, ...]
    test: tuple[ManifestRow, ...]
    class_counts: tuple[int, ...]
    """Training images per study class; 0 where the site lacks one."""
    ungrouped: bool
    """Some rows have no patient key: reports say "not patient-disjoint"."""
    num_merged_groups: int = 0
    """Patients joined with another because both hold an identical file."""
    num_quarantined: int = 0
    """Rows left out because identical files carry two labels, or stand in two splits of ungrouped data."""
