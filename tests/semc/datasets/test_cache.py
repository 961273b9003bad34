from __future__ import annotations

from pathlib import Path

import numpy as np

from semc.datasets import DecodedCache, build_site_data

from .tiny_site import DATA, patients, write_site


def test_it_keeps_what_fits_and_stays_within_its_bound(tmp_path: Path) -> None:
    site = write_site(tmp_path, patients(12))
    rows = build_site_data(site, DATA, 4).train
    one = 32 * 32
    cache = DecodedCache(max_bytes=5 * one + 7)
    for row in (*rows, *rows):
        cache.image(row, DATA, site)
    assert len(cache) == 5
    assert cache.used_bytes == 5 * one
    first = cache.image(rows[0], DATA, site)
    assert cache.image(rows[0], DATA, site) is first
    assert not first.flags.writeable
    last = cache.image(rows[-1], DATA, site)
    assert cache.image(rows[-1], DATA, site) is not last
    np.testing.assert_array_equal(cache.image(rows[-1], DATA, site), last)


def test_another_preparation_is_another_entry(tmp_path: Path) -> None:
    site = write_site(tmp_path, patients(12))
    row = build_site_data(site, DATA, 4).train[0]
    cache = DecodedCache(max_bytes=1 << 20)
    plain = cache.image(row, DATA, site)
    equalised = cache.image(row, DATA.model_copy(update={"clahe": True}), site)
    assert not np.array_equal(plain, equalised)
    assert cache.image(row, DATA.model_copy(update={"image_size": 48}), site).shape == (48, 48)
    assert len(cache) == 3


def test_warming_stops_when_full(tmp_path: Path) -> None:
    site = write_site(tmp_path, patients(12))
    rows = build_site_data(site, DATA, 4).train
    cache = DecodedCache(max_bytes=3 * 32 * 32)
    cache.warm(rows, DATA, site)
    assert len(cache) == 3
    empty = DecodedCache(max_bytes=0)
    empty.warm(rows, DATA, site)
    assert len(empty) == 0
