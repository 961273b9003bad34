"""The example a hospital starts from is a valid site file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from semc.config import load_site


def test_the_example_loads_and_its_paths_start_at_its_folder(tmp_path: Path) -> None:
    text = (resources.files("client") / "site.example.yaml").read_text(encoding="utf-8")
    file = tmp_path / "site.yaml"
    file.write_text(text, encoding="utf-8")
    site = load_site(file)
    assert site.data.root == tmp_path / "images"
    assert site.private_key == tmp_path / "site.key"
    assert site.coordinator is not None
    assert site.coordinator.root_certificates == tmp_path / "ca.crt"
    commented = text.replace("# column_map", "column_map").replace("# label_map", "label_map")
    commented = commented.replace("# ignore_labels", "ignore_labels").replace(
        "# health_address", "health_address"
    )
    commented = commented.replace("# allowed_studies", "allowed_studies").replace(
        "# expected_model", "expected_model"
    )
    file.write_text(commented, encoding="utf-8")
    assert load_site(file).allowed_studies == ("0123456789ab",)
