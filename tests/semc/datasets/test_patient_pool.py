"""Patients, their frames, and the Poisson draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from semc.config import SiteDataConfig
from semc.datasets import ManifestRow, PatientPool, SiteImages
from tests.semc.datasets.tiny_site import CLASSES, DATA, patients, write_site

_NO_SITE = SiteDataConfig(root=Path())


def rows_of(root: Path, listed: list[tuple[str, str, str]]) -> list[ManifestRow]:
    return [
        ManifestRow(number, root / file, CLASSES.index(label), group, "train", "", "", "", 0)
        for number, (file, label, group) in enumerate(listed, start=2)
    ]


def pool(root: Path, num_patients: int = 4, frames: int = 3, most: int = 2, **data: str) -> PatientPool:
    listed = patients(num_patients, frames)
    site = write_site(root, listed)
    return PatientPool(rows_of(root, listed), SiteImages(DATA.model_copy(update=data), site), most)


def test_a_patient_is_all_rows_of_a_group(tmp_path: Path) -> None:
    shuffled = [*patients(3, 2)[::2], *patients(3, 2)[1::2]]
    found = PatientPool(rows_of(tmp_path, shuffled), SiteImages(DATA, write_site(tmp_path, shuffled)), 9)
    rng = np.random.default_rng(0)
    assert found.num_patients == 3
    for patient in range(3):
        rows = found.frames(patient, rng)
        assert len(rows) == 2
        assert len({row.group for row in rows}) == 1
        assert found.load(rows, rng).ids_B.tolist() == [row.index for row in rows]


def test_at_most_m_frames_and_all_of_them_in_time(tmp_path: Path) -> None:
    found, rng = pool(tmp_path, frames=5, most=2), np.random.default_rng(0)
    chosen = [tuple(row.index for row in found.frames(0, rng)) for _ in range(200)]
    assert {len(set(rows)) for rows in chosen} == {2}
    assert len({index for rows in chosen for index in rows}) == 5
    assert len(set(chosen)) == 10  # every pair of five


def test_a_draw_is_poisson() -> None:
    """Each patient by itself with probability q: the number drawn is binomial, which a fixed batch is not."""
    found = PatientPool(rows_of(Path(), patients(50, 1)), SiteImages(DATA, _NO_SITE), 1)
    uniform = np.random.default_rng(1).random
    sizes = np.array([len(found.draw(0.1, uniform)) for _ in range(4000)])
    assert abs(sizes.mean() - 5.0) < 0.15
    assert sizes.var() == pytest.approx(50 * 0.1 * 0.9, rel=0.1)
    assert (sizes == 0).sum() == pytest.approx(4000 * stats.binom.pmf(0, 50, 0.1), abs=15)


def test_a_draw_takes_one_number_a_patient() -> None:
    found = PatientPool(rows_of(Path(), patients(3, 1)), SiteImages(DATA, _NO_SITE), 1)

    def uniform(count: int) -> NDArray[np.float64]:
        assert count == 3
        return np.array([0.0, 0.5, 0.2])

    assert found.draw(0.5, uniform) == [0, 2]
    assert found.draw(1.0, uniform) == [0, 1, 2]


def test_a_site_without_patients_draws_none() -> None:
    found = PatientPool([], SiteImages(DATA, _NO_SITE), 1)
    assert found.draw(1.0, np.random.default_rng(0).random) == []


def test_augmentation_follows_the_generator_it_is_given(tmp_path: Path) -> None:
    found = pool(tmp_path, frames=2, augmentation="paper")
    rows = found.frames(0, np.random.default_rng(0))
    first, again, other = (found.load(rows, np.random.default_rng(seed)).images_BCHW for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)
