"""The example a hospital starts from is a valid site file."""

from __future__ import annotations

import csv
import re
from importlib import resources
from pathlib import Path

import pytest
from pydantic import BaseModel

from semc.config import load_site, parse_study
from semc.config.site import (
    CoordinatorConfig,
    ExpectedModelConfig,
    SiteConfig,
    SiteDataConfig,
    SplitConfig,
)
from semc.datasets import build_site_data
from tests.client.small_study import STUDY_TEXT, write_site


def test_the_example_loads_and_its_paths_start_at_its_folder(tmp_path: Path) -> None:
    text = (resources.files("client") / "site.example.yaml").read_text(encoding="utf-8")
    file = tmp_path / "site.yaml"
    file.write_text(text, encoding="utf-8")
    site = load_site(file)
    assert site.data.root == tmp_path
    assert site.private_key == tmp_path / "site.key"
    assert site.coordinator is not None
    assert site.coordinator.root_certificates == tmp_path / "ca.crt"
    commented = re.sub(r"^( *)# ([a-z_]+:)", r"\1\2", text, flags=re.MULTILINE)
    file.write_text(commented, encoding="utf-8")
    site = load_site(file)
    assert site.allowed_studies == ("0123456789ab",)
    assert site.weights_directory == tmp_path / "weights"
    assert site.data.allow_ungrouped
    assert site.health_port == 9095


@pytest.mark.parametrize(
    "section", [SiteConfig, SiteDataConfig, SplitConfig, CoordinatorConfig, ExpectedModelConfig]
)
def test_the_example_names_every_key(section: type[BaseModel]) -> None:
    text = (resources.files("client") / "site.example.yaml").read_text(encoding="utf-8")
    assert [name for name in section.model_fields if f"{name}:" not in text] == []


def test_the_example_reads_a_manifest_beside_itself(tmp_path: Path) -> None:
    file = write_site(tmp_path)
    with (tmp_path / "images" / "manifest.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    (tmp_path / "images" / "manifest.csv").unlink()
    with (tmp_path / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"file": f"images/{row['file']}"} for row in rows)
    file.write_text((resources.files("client") / "site.example.yaml").read_text(encoding="utf-8"))
    site, study = load_site(file), parse_study(STUDY_TEXT)
    assert site.coordinator is not None
    data = build_site_data(site.data, study.data, study.training.batch_size)
    assert len(data.train) + len(data.validation) + len(data.test) == len(rows)
    assert all(row.path.is_file() for row in (*data.train, *data.validation, *data.test))
