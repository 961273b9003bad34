"""Pooled features of a frozen trunk, kept in memory: a step that trains heads then costs the heads alone.

They are a site's own, as its pixels are, and are never saved or sent. They hold as long as no frozen tensor
changes, which a digest over all of them tells at the start of every round.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch

from semc.datasets import Batch, ManifestRow
from semc.models import PooledFeatures, SEMCNet

Load = Callable[[Sequence[ManifestRow]], Batch]
"""Images of some rows, without augmentation, on the network's device."""


class FeatureMemory:
    """What the trunk makes of each image, computed when first asked for.

    Args:
        network: In evaluation mode whenever asked; trains nothing that the pooled features depend on.
    """

    def __init__(self, network: SEMCNet) -> None:
        self._network = network
        self._kept: dict[ManifestRow, PooledFeatures] = {}
        self._digest = b""

    def __len__(self) -> int:
        return len(self._kept)

    def check_current(self) -> None:
        """Forget everything if a frozen tensor is not what it was."""
        digest = self._frozen_digest()
        if digest != self._digest:
            self._kept.clear()
            self._digest = digest

    def of(self, rows: Sequence[ManifestRow], load: Load) -> PooledFeatures:
        """Return the features of rows, in their order; those not known yet are loaded and go through the trunk."""
        missing = [row for row in rows if row not in self._kept]
        if missing:
            with torch.no_grad():
                features = self._network.pooled(load(missing).images_BCHW)
            self._kept.update(zip(missing, features.by_image(), strict=True))
        return PooledFeatures.joined([self._kept[row] for row in rows])

    def _frozen_digest(self) -> bytes:
        trained = {name for name, p in self._network.named_parameters() if p.requires_grad}
        digest = hashlib.sha256()
        for name, tensor in self._network.state_dict().items():
            if name not in trained:
                digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.digest()
