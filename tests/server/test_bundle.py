"""The bundle: two data files, built by Flower's own command into exactly those and its content list."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest

from semc.config import parse_study
from server.bundle import write_bundle
from server.process import flower_environment, python_module
from tests.server.federation import tiny_study


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "semc-study"
    folder.mkdir()
    (folder / "server.py").write_text("raise SystemExit('would shadow the installed package')")
    write_bundle(folder, tiny_study(), "tiny-0123456789ab-001")
    return folder


def test_folder_holds_settings_and_study_only(bundle: Path) -> None:
    assert sorted(path.name for path in bundle.iterdir()) == ["pyproject.toml", "study.yaml"]
    assert parse_study((bundle / "study.yaml").read_text()).digest() == tiny_study().digest()


def test_flower_packs_exactly_two_files_and_its_list(bundle: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        python_module("flwr.cli.app", "build", "--app", str(bundle)),
        cwd=tmp_path,
        env=flower_environment(tmp_path / "flower"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    [archive] = tmp_path.glob("*.fab")
    with zipfile.ZipFile(archive) as content:
        assert sorted(content.namelist()) == [".info/CONTENT", "pyproject.toml", "study.yaml"]


def test_settings_name_the_installed_apps_and_the_run(bundle: Path) -> None:
    import tomllib

    app = tomllib.loads((bundle / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    assert app["components"] == {"serverapp": "server.app:app", "clientapp": "client.app:app"}
    assert app["config"] == {"study": "study.yaml", "run": "tiny-0123456789ab-001"}
