from __future__ import annotations

from pathlib import Path

import numpy as np

from semc.config.data import DataConfig
from semc.config.site import SiteDataConfig
from semc.datasets import SiteImages, build_site_data

from .tiny_site import DATA, patients, write_site


def bounded(site: SiteDataConfig, max_bytes: int, data: DataConfig = DATA) -> SiteImages:
    images = SiteImages(data, site)
    images.max_bytes = max_bytes
    return images


def test_it_keeps_what_fits_and_stays_within_its_bound(tmp_path: Path) -> None:
    site = write_site(tmp_path, patients(12))
    rows = build_site_data(site, DATA, 4).train
    one = 32 * 32
    images = bounded(site, 5 * one + 7)
    for row in (*rows, *rows):
        images.image(row)
    assert len(images) == 5
    assert images.used_bytes == 5 * one
    first = images.image(rows[0])
    assert images.image(rows[0]) is first
    assert not first.flags.writeable
    last = images.image(rows[-1])
    assert images.image(rows[-1]) is not last
    np.testing.assert_array_equal(images.image(rows[-1]), last)


def test_the_site_file_bounds_the_memory(tmp_path: Path) -> None:
    site = write_site(tmp_path, patients(12))
    row = build_site_data(site, DATA, 4).train[0]
    for cache_mb, kept in ((0, 0), (1, 1)):
        images = SiteImages(DATA, site.model_copy(update={"cache_mb": cache_mb}))
        images.image(row)
        assert (images.max_bytes, len(images)) == (cache_mb << 20, kept)


def test_images_are_prepared_as_the_study_says(tmp_path: Path) -> None:
    site = write_site(tmp_path, patients(12))
    row = build_site_data(site, DATA, 4).train[0]
    plain, equalised, larger = (
        SiteImages(DATA.model_copy(update=update), site).image(row)
        for update in ({}, {"clahe": True}, {"image_size": 48})
    )
    assert not np.array_equal(plain, equalised)
    assert larger.shape == (48, 48)


def test_warming_stops_when_full(tmp_path: Path) -> None:
    site = write_site(tmp_path, patients(12))
    rows = build_site_data(site, DATA, 4).train
    images = bounded(site, 3 * 32 * 32)
    images.warm(rows)
    assert len(images) == 3
    empty = bounded(site, 0)
    empty.warm(rows)
    assert len(empty) == 0
