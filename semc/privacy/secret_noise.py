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

_BYTES_PER_KEY: Final = 2**30
"""The counter of ChaCha20's blocks has 32 bits, so a key lasts 2**38 bytes, and the library raises there: 28 steps of
150 million weights at 64 bytes a value."""


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
        self._stream = SecretStream() if stream is None else stream
        self._process = os.getpid()

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Return numbers in [0, 1), each a multiple of 2**-53."""
        words = np.frombuffer(self._read(8 * count), dtype="<u8")
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
        return np.random.Generator(np.random.PCG64(int.from_bytes(self._read(32), "little")))

    def _read(self, num_bytes: int) -> bytes:
        if os.getpid() != self._process:
            raise RuntimeError("a forked process would repeat its parent's secret numbers")
        return self._stream.read(num_bytes)

    def __repr__(self) -> str:
        return "SecretRng(...)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("secret randomness is never saved or copied")


class SecretStream:
    """ChaCha20's key stream under keys nobody else has; none is kept.

    Args:
        bytes_per_key: Read before the operating system is asked for another key; small in tests alone.
    """

    def __init__(self, bytes_per_key: int = _BYTES_PER_KEY) -> None:
        self._bytes_per_key = bytes_per_key
        self._left = 0

    def read(self, num_bytes: int) -> bytes:
        """Encrypt zeros."""
        parts = []
        while num_bytes > 0:
            if self._left == 0:
                # A key is used once, so the nonce and the counter in it may start at zero.
                self._cipher = Cipher(ChaCha20(os.urandom(32), bytes(16)), mode=None).encryptor()
                self._left = self._bytes_per_key
            taken = min(num_bytes, self._left)
            parts.append(self._cipher.update(bytes(taken)))
            self._left -= taken
            num_bytes -= taken
        return b"".join(parts)
