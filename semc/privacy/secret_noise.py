"""Randomness that nobody outside the process can reproduce: the draw of patients and the noise.

Noise hides a patient only from those who cannot compute it. Everything else in a study comes from its public seed,
so the mechanism has a stream of its own: ChaCha20 under a key from the operating system, made anew for every
reservation of budget. It has no seed to give or to log, and cannot be copied, saved or carried into a forked
process, where it would say the same numbers twice.
"""

from __future__ import annotations

import math
import os
from typing import Final, NoReturn, Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from numpy.typing import NDArray

_DRAWS: Final = 4
"""Normal draws averaged into one value: their sum blurs which floats a single draw can reach (section 5.1 of
Holohan and Braghin 2021, "Secure random sampling in differential privacy")."""


class KeyStream(Protocol):
    """A source of bytes; anything but the secret one is for tests."""

    def read(self, num_bytes: int) -> bytes:
        """Return the next bytes; none is ever returned twice."""


class SecretRng:
    """Uniform and normal numbers from the operating system's entropy.

    Args:
        stream: Where the bytes come from; None = a fresh secret stream. Tests alone give one: no command line, no
            study and no site file reaches this argument.
    """

    def __init__(self, stream: KeyStream | None = None) -> None:
        self._stream = _SecretStream() if stream is None else stream
        self._process = os.getpid()

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Return numbers in [0, 1), each a multiple of 2**-53."""
        if os.getpid() != self._process:
            raise RuntimeError("a forked process would repeat its parent's secret numbers")
        words = np.frombuffer(self._stream.read(8 * count), dtype="<u8")
        return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def normal(self, count: int) -> NDArray[np.float64]:
        """Return standard normal numbers: the sum of four Box-Muller draws, halved."""
        total = np.zeros(count)
        for _ in range(_DRAWS):
            # 1 - u lies in (0, 1]: the logarithm is finite.
            radius = np.sqrt(-2.0 * np.log(1.0 - self.uniform(count)))
            total += radius * np.cos(2.0 * math.pi * self.uniform(count))
        return total / math.sqrt(_DRAWS)

    def generator(self) -> np.random.Generator:
        """Return a numpy generator seeded with 256 secret bits, for frames and augmentation; never for noise."""
        return np.random.Generator(np.random.PCG64(int.from_bytes(self._stream.read(32), "little")))

    def __repr__(self) -> str:
        return "SecretRng(...)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("secret randomness is never saved or copied")


class _SecretStream:
    """ChaCha20's key stream under a key nobody else has; the key is not kept."""

    def __init__(self) -> None:
        # The key is used once, so the nonce may be zero; a zero counter is 2**64 blocks from its end.
        self._cipher = Cipher(ChaCha20(os.urandom(32), bytes(16)), mode=None).encryptor()

    def read(self, num_bytes: int) -> bytes:
        """Encrypt zeros."""
        return self._cipher.update(bytes(num_bytes))
