"""Site files: relative paths, unknown keys, nothing of the site in an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from semc.config import load_site
from semc.exit_codes import ExitCode, SemcError

SITE = """
site: north
data: {root: images}
coordinator: {address: "127.0.0.1:8000", root_certificates: ca.crt}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "site.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_relative_paths_start_at_the_site_file(tmp_path: Path) -> None:
    site = load_site(write(tmp_path, SITE))
    assert site.data.root == tmp_path / "images"
    assert site.state_directory == tmp_path / "state"
    assert site.private_key == tmp_path / "site.key"
    assert site.coordinator is not None
    assert site.coordinator.root_certificates == tmp_path / "ca.crt"
    assert site.weights_directory is None
    weights = load_site(write(tmp_path, SITE + "weights_directory: weights\n")).weights_directory
    assert weights == tmp_path / "weights"


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("site: north", "site: north\ncolour: red", "colour"),
        ("site: north", "site: 'North Hospital'", "site"),
        ('"127.0.0.1:8000"', '"no-port"', "address"),
        ("{root: images}", "{root: images, format: dicomdir}", "format"),
    ],
)
def test_wrong_site_files_name_the_key(tmp_path: Path, old: str, new: str, word: str) -> None:
    with pytest.raises(SemcError) as caught:
        load_site(write(tmp_path, SITE.replace(old, new)))
    assert caught.value.code is ExitCode.CONFIG_INVALID
    assert word in caught.value.problem
    assert str(tmp_path) not in caught.value.line()


def test_a_missing_site_file_is_its_own_code(tmp_path: Path) -> None:
    with pytest.raises(SemcError) as caught:
        load_site(tmp_path / "absent.yaml")
    assert caught.value.code is ExitCode.CONFIG_NOT_FOUND
