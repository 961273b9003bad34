"""The example a hospital starts from is a valid site file."""

from __future__ import annotations

import csv
from importlib import resources
from pathlib import Path

from semc.config import load_site, parse_study
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
    commented = text.replace("# column_map", "column_map").replace("# label_map", "label_map")
    commented = commented.replace("# ignore_labels", "ignore_labels").replace(
        "# health_address", "health_address"
    )
    commented = commented.replace("# weights_directory", "weights_directory")
    commented = commented.replace("# allowed_studies", "allowed_studies").replace(
        "# expected_model", "expected_model"
    )
    file.write_text(commented, encoding="utf-8")
    site = load_site(file)
    assert site.allowed_studies == ("0123456789ab",)
    assert site.weights_directory == tmp_path / "weights"


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
