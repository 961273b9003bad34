"""Old keys under new weights: how far they drifted, and re-encoding the newest of them (`queue_on_update: refresh`).

After a global update the queue holds keys of another network. The queue knows which images its rows came from, so the
site can encode those images again. Keys are made as in training, normalised by the batch at hand, but of the images
without augmentation, which lowers the cosine a little even where no weight changed.

Shape legend: M keys of one image, D embedding, N experts, B images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from semc.models import SEMCOutput
from semc.models.batch_statistics import normalised_by_batch, statistics_kept
from semc.objectives.memory_queue import MemoryQueue
from semc.objectives.objective import ImagesOf

PROBED_IMAGES: Final = 32
"""Images, of all ages alike, on which drift is measured where the keys stay as they are."""
_SMALLEST_BATCH: Final = 2


@dataclass(frozen=True)
class StoredImage:
    """What the queue holds of one image."""

    image: int
    """Row number in the site's manifest."""
    label: int
    slots: tuple[int, ...]
    """Its newest keys, in the order they were pushed, that is by expert; of a push cut off only the last ones."""


def refresh_keys(
    queue: MemoryQueue, network: nn.Module, images_of: ImagesOf, keys_per_image: int
) -> float | None:
    """Re-encode the newest images of each ring, half its slots, and forget all other keys.

    Afterwards every key is of one network and every image in the queue once; the older half, and images that the
    site no longer has, are gone.

    Args:
        queue: Changed in place.
        network: With the new weights; unchanged, running statistics and random streams included.
        images_of: The site's images by id.
        keys_per_image: Rows M of one image, one per expert after the first.

    Returns:
        Mean cosine between old keys and re-encoded ones; None where there was no key.
    """
    stored = _newest_images(queue, queue.slots_per_ring // 2, keys_per_image)
    keys = _encoded(network, images_of, stored)
    drift = _mean_cosine(queue, stored, keys)
    queue.clear()
    kept = [entry for entry in reversed(stored) if entry.image in keys]  # oldest first
    if kept:
        repeats = torch.tensor([len(keys[entry.image]) for entry in kept])
        queue.push(
            torch.cat([keys[entry.image] for entry in kept]),
            torch.tensor([entry.label for entry in kept]).repeat_interleave(repeats),
            torch.tensor([entry.image for entry in kept]).repeat_interleave(repeats),
        )
    return drift


def key_drift(
    queue: MemoryQueue, network: nn.Module, images_of: ImagesOf, keys_per_image: int
) -> float | None:
    """Return the mean cosine between keys of all ages and what the network makes of their images now.

    Nothing is changed; arguments as in :func:`refresh_keys`. None where there is no key.
    """
    every = len(queue) * keys_per_image
    newest_first = _newest_images(queue, every, keys_per_image)
    stored = newest_first[:: max(1, -(-len(newest_first) // PROBED_IMAGES))]
    return _mean_cosine(queue, stored, _encoded(network, images_of, stored))


def keys_of(embeddings_NBD: Tensor) -> Tensor:
    """Return the experts' embeddings that enter the queue: p_2..p_N, or p_1 where there is one expert."""
    return embeddings_NBD[1:] if len(embeddings_NBD) > 1 else embeddings_NBD


def _newest_images(queue: MemoryQueue, rows_per_ring: int, keys_per_image: int) -> list[StoredImage]:
    """Return each ring's newest images, newest first, as many as fit in `rows_per_ring`, at least one."""
    ids, ages, labels = queue.ids_Q.tolist(), queue.ages_Q.tolist(), queue.labels_Q.tolist()
    slots_of: dict[int, list[int]] = {}
    for slot in queue.rows_newest_first():
        slots = slots_of.setdefault(ids[slot], [slot])
        if slots[-1] != slot and ages[slots[0]] == ages[slot]:
            slots.append(slot)  # a key of the same push; older ones of the image do not count
    taken: Counter[int] = Counter()
    chosen = []
    for image, slots in slots_of.items():
        ring = slots[0] // queue.slots_per_ring
        if taken[ring] == 0 or taken[ring] + keys_per_image <= rows_per_ring:
            taken[ring] += keys_per_image
            chosen.append(StoredImage(image, labels[slots[0]], tuple(reversed(slots))))
    return chosen


@torch.no_grad()
def _encoded(network: nn.Module, images_of: ImagesOf, stored: Sequence[StoredImage]) -> dict[int, Tensor]:
    """Return keys_MD on the CPU by image id; a batch of one image has no batch statistics and is left out."""
    device = next(network.parameters()).device
    keys: dict[int, Tensor] = {}
    with statistics_kept(network), normalised_by_batch(network):
        for batch in images_of([entry.image for entry in stored]) if stored else ():
            if len(batch.ids_B) < _SMALLEST_BATCH:
                continue
            output = network(batch.images_BCHW.to(device, non_blocking=True))
            if not isinstance(output, SEMCOutput) or output.embeddings_NBD is None:
                raise ValueError("the queue needs a network with embeddings")
            keys_BMD = keys_of(output.embeddings_NBD).transpose(0, 1).float().cpu()
            keys.update(zip(batch.ids_B.tolist(), keys_BMD, strict=True))
    return keys


def _mean_cosine(queue: MemoryQueue, stored: Sequence[StoredImage], keys: dict[int, Tensor]) -> float | None:
    """Return the mean cosine of old and new keys of the same image and expert; None where there is no pair."""
    both = [entry for entry in stored if entry.image in keys]
    if not both:
        return None
    old_MD = queue.embeddings_QD[[slot for entry in both for slot in entry.slots]].cpu()
    new_MD = torch.cat([keys[entry.image][-len(entry.slots) :] for entry in both])
    cosine = functional.cosine_similarity(old_MD, new_MD, dim=1).mean()
    return cosine.item() if bool(torch.isfinite(cosine)) else None
