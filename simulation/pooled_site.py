"""The pooled yardstick as one more site: what a single hospital with everybody's training images could reach.

No real federation can have it; it bounds from above what sharing weights can gain. Its folder holds the sites' training
and validation images, patients and splits unchanged, and no test image.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import yaml

from semc.config import StudyConfig, load_site
from semc.datasets import build_site_data
from semc.datasets.phantom.write import MANIFEST_COLUMNS
from simulation.site_folder import SITE_FILE, link_image

POOLED = "pooled"
_SPLIT_CELL = {"train": "train", "validation": "val"}


def pool_sites(study: StudyConfig, site_files: Mapping[str, Path], folder: Path) -> Path:
    """Write the pooled site and return its site file.

    Args:
        study: Names the classes.
        site_files: Site name to site file.
        folder: The new site's folder.

    Raises:
        SemcError: What one of the sites is refused for.
    """
    folder.mkdir(parents=True)
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(MANIFEST_COLUMNS)
        for name, file in sorted(site_files.items()):
            data = build_site_data(load_site(file).data, study.data, study.training.batch_size)
            for row in (*data.train, *data.validation):
                target = Path("images") / name / f"{row.index}{row.path.suffix}"
                (folder / target).parent.mkdir(parents=True, exist_ok=True)
                link_image(row.path, folder / target)
                label = study.data.classes[row.label]
                cells = (label, f"{name}/{row.group}", POOLED, _SPLIT_CELL[row.split])
                writer.writerow((target.as_posix(), *cells, row.acquisition, row.device, row.frame))
    no_cut = {"validation_fraction": 0.0, "test_fraction": 0.0}
    content = {"site": POOLED, "data": {"root": ".", "manifest": "manifest.csv", "split": no_cut}}
    (folder / SITE_FILE).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return folder / SITE_FILE
