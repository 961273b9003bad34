"""A key stream that anybody can reproduce, for tests alone."""

from __future__ import annotations

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20


class FixedStream:
    """ChaCha20 under a key made of a small number."""

    def __init__(self, seed: int) -> None:
        self._cipher = Cipher(ChaCha20(seed.to_bytes(32, "big"), bytes(16)), mode=None).encryptor()

    def read(self, num_bytes: int) -> bytes:
        return self._cipher.update(bytes(num_bytes))
