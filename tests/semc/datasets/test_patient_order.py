"""Images spread over patients: nested choices, mixed batches, no batch of one image."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semc.config import SiteDataConfig
from semc.datasets import (
    ManifestRow,
    SiteImages,
    adaptation_batches,
    build_site_data,
    evaluation_batches,
    patient_halves,
    spread_over_patients,
)
from tests.semc.datasets.tiny_site import DATA, patients, write_site


def row(index: int, group: str) -> ManifestRow:
    return ManifestRow(index, Path("x.png"), 0, group, "train", "", "", "", 0)


def rows_of(frames: list[int]) -> list[ManifestRow]:
    """Rows of patients with these numbers of frames, exam after exam."""
    groups = [f"p{patient}" for patient, count in enumerate(frames) for _ in range(count)]
    return [row(index, group) for index, group in enumerate(groups, start=2)]


@settings(max_examples=40, deadline=None)
@given(
    frames=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    limit=st.integers(1, 80),
    seed=st.integers(0, 9),
)
def test_every_patient_gives_one_before_any_gives_a_second(frames: list[int], limit: int, seed: int) -> None:
    rows = rows_of(frames)
    chosen = spread_over_patients(rows, limit, seed)
    assert len(chosen) == len({entry.index for entry in chosen}) == min(limit, len(rows))
    taken = Counter(entry.group for entry in chosen)
    for patient, count in enumerate(frames):
        others = max(taken.values())
        assert taken[f"p{patient}"] >= min(count, others - 1)
    assert spread_over_patients(rows, limit // 2, seed) == chosen[: limit // 2]


def test_the_choice_follows_the_seed_not_the_order_of_the_manifest() -> None:
    rows = rows_of([9, 4, 7])
    assert spread_over_patients(rows, 6, 0) == spread_over_patients(rows, 6, 0)
    assert spread_over_patients(rows, 6, 0) != spread_over_patients(rows, 6, 1)
    first = {entry.index for entry in spread_over_patients(rows, 3, 0)}
    assert first != {2, 3, 4}, "not the first exam"


def test_halves_share_no_patient() -> None:
    one, other = patient_halves(rows_of([3, 5, 1, 4]))
    assert {entry.group for entry in one} == {"p0", "p2"}
    assert {entry.group for entry in other} == {"p1", "p3"}
    assert len(one) + len(other) == 13


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SiteDataConfig:
    return write_site(tmp_path_factory.mktemp("site"), patients(18, frames=7))


def test_batches_are_even_mixed_complete_and_follow_the_seed(site: SiteDataConfig) -> None:
    rows = list(build_site_data(site, DATA, 4).train)
    for count in (2, 3, 31, 32, 33, 64, 65):
        chosen = rows[:count]
        batches = list(adaptation_batches(chosen, SiteImages(DATA, site), seed=0))
        sizes = [len(batch.images_BCHW) for batch in batches]
        assert max(sizes) - min(sizes) <= 1
        assert 2 <= min(sizes) <= max(sizes) <= 32
        assert sorted(i for batch in batches for i in batch.ids_B.tolist()) == [r.index for r in chosen]
        by_id = {entry.index: entry.group for entry in chosen}
        for group, frames in Counter(by_id.values()).items():
            shares = [sum(by_id[i] == group for i in batch.ids_B.tolist()) for batch in batches]
            assert max(shares) - min(shares) <= 1, frames
    passes = [
        [b.ids_B.tolist() for b in adaptation_batches(rows, SiteImages(DATA, site), seed=k)]
        for k in (0, 0, 1)
    ]
    assert passes[0] == passes[1] != passes[2]


def test_images_are_those_of_evaluation(site: SiteDataConfig) -> None:
    rows = list(build_site_data(site, DATA, 4).train)[:3]
    (mixed,) = adaptation_batches(rows, SiteImages(DATA, site), seed=0)
    (plain,) = evaluation_batches(rows, SiteImages(DATA, site), batch_size=3)
    order = [plain.ids_B.tolist().index(i) for i in mixed.ids_B.tolist()]
    assert torch.equal(mixed.images_BCHW, plain.images_BCHW[order])
    assert list(adaptation_batches([], SiteImages(DATA, site), seed=0)) == []
