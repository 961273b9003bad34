"""The secret stream: right distributions, never the same twice, and no way out."""

from __future__ import annotations

import copy
import inspect
import os
import pickle

import numpy as np
import pytest
from scipy import stats

from semc.privacy.secret_noise import SecretRng
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


def test_a_forked_process_gets_no_numbers() -> None:
    secret = SecretRng()
    child = os.fork()
    if child == 0:
        try:
            secret.uniform(1)
        except RuntimeError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(secret.uniform(1)) == 1
