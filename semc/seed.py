"""Randomness: one study seed, from which every other seed is derived by name.

A seed is never drawn from another generator's state, so adding a site, a round or a data worker changes no
other stream, and a replayed round meets the same numbers.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

_NUMPY_WORDS = 624


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


def seed_worker(worker: int) -> None:
    """Seed Python and numpy in a data-loading process from the seed torch gave it.

    Args:
        worker: The worker's number, unused: torch already mixed it in.
    """
    seed = torch.initial_seed()
    random.seed(seed)
    np.random.seed(seed % 2**32)


def rng_state() -> dict[str, Tensor]:
    """Return the state of every generator as tensors that survive a safetensors file.

    Returns:
        `torch` (uint8), `cuda` (uint8, current device; only where there is one), `numpy` and `python` (int64
        words), `gauss` (float64 [2], the half of a normal draw that numpy and Python keep; NaN where none).
    """
    kind = np.random.get_state(legacy=False)
    version, words, python_gauss = random.getstate()
    numpy_words = [*kind["state"]["key"].tolist(), kind["state"]["pos"], kind["has_gauss"]]
    state = {
        "torch": torch.get_rng_state(),
        "numpy": torch.tensor(numpy_words, dtype=torch.int64),
        "python": torch.tensor([version, *words], dtype=torch.int64),
        "gauss": torch.tensor(
            [kind["gauss"], float("nan") if python_gauss is None else python_gauss], dtype=torch.float64
        ),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: Mapping[str, Tensor]) -> None:
    """Put every generator back to what :func:`rng_state` returned.

    A state saved with a GPU loads without one, and the reverse; the missing generator keeps its state.
    """
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
    *key, position, has_gauss = state["numpy"].tolist()
    numpy_gauss, python_gauss = state["gauss"].tolist()
    np.random.set_state(
        {
            "bit_generator": "MT19937",
            "state": {"key": np.array(key[:_NUMPY_WORDS], dtype=np.uint32), "pos": position},
            "has_gauss": has_gauss,
            "gauss": numpy_gauss,
        }
    )
    version, *words = state["python"].tolist()
    random.setstate((version, tuple(words), None if np.isnan(python_gauss) else python_gauss))
