"""Randomness: one study seed, from which every other seed is derived by name.

A seed is never drawn from another generator's state, so adding a site, a round or a data worker changes no
other stream, and a replayed round meets the same numbers.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*parts: str | int) -> int:
    """Return a seed for one named stream, e.g. ``derive_seed(study.seed, "site-a", 3)``.

    Args:
        parts: The study's seed and whatever names the stream; ``1`` and ``"1"`` are different parts.

    Returns:
        An integer in [0, 2**63), spread by SHA-256, the same on every machine.
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch (all devices) and pin cuDNN to its deterministic kernels."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


@contextmanager
def seeded_init(seed: int) -> Iterator[None]:
    """Draw initial weights on the CPU from `seed` and leave the caller's torch generator untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
