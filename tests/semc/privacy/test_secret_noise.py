"""The secret stream: right distributions, never the same twice, and no way out."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from scipy import stats

from semc.privacy.secret_noise import SecretRng, SecretStream
from semc.seed import seed_everything
from tests.semc.privacy.fixed_stream import FixedStream


def test_normal_numbers_are_normal() -> None:
    numbers = SecretRng(FixedStream(1)).normal(200_000)
    assert stats.kstest(numbers, "norm").pvalue > 0.01
    assert abs(numbers.std() - 1.0) < 0.005
    # Four draws summed and not halved, the slip to fear, is told apart at once.
    assert stats.kstest(2.0 * numbers, "norm").pvalue < 1e-6


def test_tails_are_normal() -> None:
    numbers = np.abs(SecretRng(FixedStream(2)).normal(400_000))
    for bound in (2.0, 3.0, 4.0):
        expected = 2 * stats.norm.sf(bound) * len(numbers)
        assert abs((numbers > bound).sum() - expected) < 4 * expected**0.5


def test_uniform_numbers_are_uniform_below_one() -> None:
    numbers = SecretRng(FixedStream(3)).uniform(100_000)
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    assert stats.kstest(numbers, "uniform").pvalue > 0.01


def test_largest_word_stays_below_one() -> None:
    class Ones:
        def read(self, num_bytes: int) -> bytes:
            return b"\xff" * num_bytes

    assert SecretRng(Ones()).uniform(1)[0] == 1.0 - 2.0**-53
    assert np.isfinite(SecretRng(Ones()).normal(1)).all()


def test_the_study_seed_does_not_reach_it() -> None:
    def drawn() -> bytes:
        seed_everything(0)
        return SecretRng().uniform(8).tobytes()

    def drawn_by_numpy() -> bytes:
        seed_everything(0)
        return np.random.random(8).tobytes()

    assert drawn() != drawn()
    assert drawn_by_numpy() == drawn_by_numpy()  # the control: another generator does follow the seed


def test_an_injected_stream_repeats() -> None:
    first, second = SecretRng(FixedStream(4)), SecretRng(FixedStream(4))
    assert np.array_equal(first.normal(5), second.normal(5))
    assert first.generator().random() == second.generator().random()
    assert not np.array_equal(first.normal(5), first.normal(5))


def test_frame_generators_differ() -> None:
    secret = SecretRng()
    assert secret.generator().random() != secret.generator().random()


def test_it_is_not_saved_copied_or_shown() -> None:
    secret = SecretRng()
    assert repr(secret) == str(secret) == "SecretRng(...)"
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never saved"):
            leak(secret)
    assert "seed" not in inspect.signature(SecretRng).parameters


def test_a_key_is_replaced_before_its_counter_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces of any size, across keys, with no block twice; each key gives the start of its own key stream."""
    keys = [bytes([number] * 32) for number in range(1, 6)]
    waiting = iter(keys)
    monkeypatch.setattr("semc.privacy.secret_noise.os.urandom", lambda size: next(waiting))
    stream = SecretStream(bytes_per_key=128)
    read = b"".join(stream.read(size) for size in (100, 28, 1, 300, 0, 211))
    expected = [Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor().update(bytes(128)) for key in keys]
    assert read == b"".join(expected)
    blocks = [read[start : start + 64] for start in range(0, len(read), 64)]
    assert len(set(blocks)) == len(blocks) == 10


def test_numbers_go_on_over_many_keys() -> None:
    numbers = SecretRng(SecretStream(bytes_per_key=1000)).normal(20_000)
    assert len(np.unique(numbers)) == 20_000
    assert stats.kstest(numbers, "norm").pvalue > 1e-4


def test_one_key_alone_would_end() -> None:
    """What the change of keys is for, at the last block that the library's 32-bit counter has."""
    last_block = (2**32 - 1).to_bytes(4, "little") + bytes(12)
    cipher = Cipher(ChaCha20(bytes(32), last_block), mode=None).encryptor()
    assert len(cipher.update(bytes(64))) == 64
    with pytest.raises(ValueError, match="counter"):
        cipher.update(bytes(1))
    assert inspect.signature(SecretStream).parameters["bytes_per_key"].default <= 2**38 // 2


@pytest.mark.parametrize("ask", [lambda secret: secret.uniform(1), lambda secret: secret.generator()])
def test_a_forked_process_gets_no_numbers(ask: Callable[[SecretRng], object]) -> None:
    secret = SecretRng()
    child = os.fork()
    if child == 0:
        try:
            ask(secret)
        except RuntimeError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(secret.uniform(1)) == 1
