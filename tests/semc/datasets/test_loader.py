from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from semc.config import DataConfig, SiteDataConfig
from semc.datasets import (
    Batch,
    ManifestRow,
    SiteImages,
    build_site_data,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
)
from semc.exit_codes import ExitCode, SemcError

from .tiny_site import DATA, patients, write_site

PAPER = DATA.model_copy(update={"augmentation": "paper"})


@pytest.fixture
def site(tmp_path: Path) -> SiteDataConfig:
    return write_site(tmp_path, patients(12))


@pytest.fixture
def rows(site: SiteDataConfig) -> tuple[ManifestRow, ...]:
    return build_site_data(site, DATA, 4).train


def stream(
    rows: tuple[ManifestRow, ...],
    site: SiteDataConfig,
    *,
    data: DataConfig = PAPER,
    batch_size: int = 4,
    num_steps: int | None = None,
    seed: int = 1,
    workers: int = 0,
    cache_bytes: int = 1 << 20,
) -> list[Batch]:
    images = SiteImages(data, site)
    images.max_bytes = cache_bytes
    batches = training_batches(
        rows, images, batch_size=batch_size, num_steps=num_steps, seed=seed, workers=workers
    )
    return list(batches)


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.images_BCHW, b.images_BCHW)
        assert torch.equal(a.ids_B, b.ids_B)


def test_an_epoch_holds_every_row_once_for_any_batch_size(
    rows: tuple[ManifestRow, ...], site: SiteDataConfig
) -> None:
    for batch_size in range(2, len(rows) + 3):
        batches = stream(rows, site, batch_size=batch_size)
        sizes = [len(batch.ids_B) for batch in batches]
        assert sorted(int(number) for batch in batches for number in batch.ids_B) == sorted(
            r.index for r in rows
        )
        assert len(batches) == steps_per_epoch(len(rows), batch_size)
        assert min(sizes) >= 2, "a batch of one would break batch normalisation"
        assert max(sizes) <= batch_size + 1


def test_a_remainder_of_one_joins_its_neighbour(rows: tuple[ManifestRow, ...], site: SiteDataConfig) -> None:
    assert [len(batch.ids_B) for batch in stream(rows[:9], site, batch_size=4)] == [4, 5]
    assert [len(batch.ids_B) for batch in stream(rows[:10], site, batch_size=4)] == [4, 4, 2]


def test_the_stream_reshuffles_without_end_and_is_cut(
    rows: tuple[ManifestRow, ...], site: SiteDataConfig
) -> None:
    per_epoch = steps_per_epoch(len(rows), 4)
    batches = stream(rows, site, num_steps=3 * per_epoch + 1)
    assert len(batches) == 3 * per_epoch + 1
    epochs = [
        [int(number) for batch in batches[start : start + per_epoch] for number in batch.ids_B]
        for start in (0, per_epoch, 2 * per_epoch)
    ]
    assert Counter(epochs[0]) == Counter(epochs[1]) == Counter(epochs[2])
    assert epochs[0] != epochs[1] != epochs[2]


def test_batches_follow_the_seed_alone(rows: tuple[ManifestRow, ...], site: SiteDataConfig) -> None:
    first = stream(rows, site, num_steps=12)
    torch.manual_seed(999)
    assert_same(first, stream(rows, site, num_steps=12, cache_bytes=0))
    assert_same(first[:5], stream(rows, site, num_steps=5))
    other = stream(rows, site, num_steps=12, seed=2)
    assert any(not torch.equal(a.ids_B, b.ids_B) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_depend_on_workers(
    rows: tuple[ManifestRow, ...], site: SiteDataConfig, workers: int
) -> None:
    assert_same(stream(rows, site, num_steps=9), stream(rows, site, num_steps=9, workers=workers))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_keeps_its_code_and_row(
    rows: tuple[ManifestRow, ...], site: SiteDataConfig, workers: int
) -> None:
    rows[5].path.write_bytes(b"not an image")
    with pytest.raises(SemcError) as caught:
        # Without memory nothing is decoded before the workers start.
        stream(rows, site, workers=workers, cache_bytes=0)
    assert caught.value.code is ExitCode.DATA_UNREADABLE
    assert f"Row {rows[5].index}:" in caught.value.problem


def test_labels_ids_and_groups_match_their_rows(rows: tuple[ManifestRow, ...], site: SiteDataConfig) -> None:
    by_id = {row.index: row for row in rows}
    dense = sorted({row.group for row in rows})
    for batch in stream(rows, site):
        assert batch.images_BCHW.shape[1:] == (3, 32, 32)
        assert batch.images_BCHW.dtype == torch.float32
        for number, label, group in zip(batch.ids_B, batch.labels_B, batch.groups_B, strict=True):
            row = by_id[int(number)]
            assert int(label) == row.label
            assert dense[int(group)] == row.group


def test_evaluation_scores_every_row_once_in_order(
    rows: tuple[ManifestRow, ...], site: SiteDataConfig
) -> None:
    for batch_size in (1, 4, 5, 100):
        batches = list(evaluation_batches(rows, SiteImages(PAPER, site), batch_size=batch_size))
        assert [int(number) for batch in batches for number in batch.ids_B] == [row.index for row in rows]
    again = list(evaluation_batches(rows, SiteImages(PAPER, site), batch_size=100))
    assert torch.equal(again[0].images_BCHW, batches[0].images_BCHW), "no augmentation in evaluation"
    assert list(evaluation_batches((), SiteImages(PAPER, site), batch_size=4)) == []


def test_a_batch_moves_as_one(rows: tuple[ManifestRow, ...], site: SiteDataConfig) -> None:
    batch = stream(rows, site)[0].to(torch.device("meta"))
    assert {
        tensor.device.type for tensor in (batch.images_BCHW, batch.labels_B, batch.ids_B, batch.groups_B)
    } == {"meta"}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_goes_on_in_its_middle(
    rows: tuple[ManifestRow, ...], site: SiteDataConfig, workers: int
) -> None:
    whole = stream(rows, site, num_steps=9)
    images = SiteImages(PAPER, site)
    rest = training_batches(rows, images, batch_size=4, num_steps=9, seed=1, workers=workers, first_step=7)
    assert_same(list(rest), whole[7:])
    unread = SiteImages(PAPER, site)
    assert list(training_batches(rows, unread, batch_size=4, num_steps=9, seed=1, first_step=9)) == []
    assert len(unread) == 0, "what is left out is not read"


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_take_nothing_from_the_networks_generator(
    rows: tuple[ManifestRow, ...], site: SiteDataConfig, workers: int
) -> None:
    torch.manual_seed(4)
    stream(rows, site, num_steps=3, workers=workers)
    drawn = torch.rand(1)
    torch.manual_seed(4)
    assert torch.equal(drawn, torch.rand(1))
