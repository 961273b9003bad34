"""What is installed is exactly what is tracked: no ignore pattern or stray folder changes a wheel unseen."""

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("semc", "client", "server", "simulation")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return zipfile.ZipFile(built)


def tracked(*paths: str) -> set[str]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", *paths], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout: nothing to compare the wheel with")
    # A file deleted but not yet committed is no longer part of the work.
    return {name for name in listing.stdout.split("\0") if name and (ROOT / name).exists()}


def in_packages(wheel: zipfile.ZipFile) -> set[str]:
    return {name for name in wheel.namelist() if not name.split("/")[0].endswith(".dist-info")}


def untracked() -> set[str]:
    """Return files git would offer to add: work in progress, in the wheel but not yet in a commit."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--others", "--exclude-standard", *PACKAGES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return {name for name in listing.stdout.split("\0") if name}


def test_wheel_holds_every_tracked_file_of_the_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    expected = tracked(*PACKAGES)
    assert expected - in_packages(wheel) == set(), "tracked, but an ignore pattern keeps it out of the wheel"
    assert in_packages(wheel) - expected - untracked() == set(), "in the wheel, but ignored by git"


def test_wheel_ships_data_files_and_types(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert {f"{package}/py.typed" for package in PACKAGES} <= names
    assert "semc/studies/phantom_smoke.yaml" in names
    not_python = {name for name in tracked(*PACKAGES) if not name.endswith(".py")}
    assert not_python <= names


def test_wheel_holds_no_tests_caches_or_results(wheel: zipfile.ZipFile) -> None:
    for name in in_packages(wheel):
        parts = Path(name).parts
        assert parts[0] in PACKAGES, name
        assert not {"tests", "__pycache__", ".mypy_cache", "runs"} & set(parts), name
        assert not name.endswith((".pyc", ".safetensors", ".png", ".dcm")), name


def test_wheel_states_licence_python_and_programs(wheel: zipfile.ZipFile) -> None:
    (info,) = {name.split("/")[0] for name in wheel.namelist() if name.split("/")[0].endswith(".dist-info")}
    metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "flwr[simulation]==1.41.0" in (metadata.get_all("Requires-Dist") or [])
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    programs = wheel.read(f"{info}/entry_points.txt").decode()
    for line in (
        "semc-client = client.cli:main",
        "semc-server = server.cli:main",
        "semc-sim = simulation.cli:main",
    ):
        assert line in programs
