"""The pooled yardstick's site: everybody's training images, nobody's test image."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

from semc.config import StudyConfig, load_site
from semc.datasets import SiteData, build_site_data
from simulation.pooled_site import pool_sites


def _data(file: Path, study: StudyConfig) -> SiteData:
    return build_site_data(load_site(file).data, study.data, study.training.batch_size)


def _pixels(rows: object) -> Counter[str]:
    return Counter(hashlib.sha256(row.path.read_bytes()).hexdigest() for row in rows)  # type: ignore[attr-defined]


def test_pooled_holds_the_sites_training_and_validation_images(
    hospitals: Path, study: StudyConfig, tmp_path: Path
) -> None:
    files = {name: hospitals / name / "site.yaml" for name in study.federation.sites}
    sites = [_data(file, study) for file in files.values()]
    pooled = _data(pool_sites(study, files, tmp_path / "pooled"), study)
    assert _pixels(pooled.train) == sum((_pixels(site.train) for site in sites), Counter())
    assert _pixels(pooled.validation) == sum((_pixels(site.validation) for site in sites), Counter())
    assert pooled.test == ()
    tests = sum((_pixels(site.test) for site in sites), Counter())
    assert not (_pixels(pooled.train) + _pixels(pooled.validation)) & tests
    assert pooled.class_counts == tuple(
        sum(counts) for counts in zip(*(site.class_counts for site in sites), strict=True)
    )
    groups = {row.group for row in pooled.train}
    assert len(groups) == sum(len({row.group for row in site.train}) for site in sites)
