"""House rules no reviewer should have to check by eye: names, folders, pins, ignore patterns, sizes."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("semc", "client", "server", "simulation")
MAX_BYTES = 500 * 1024


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [Path(name) for name in listing.stdout.split("\0") if name and (ROOT / name).exists()]


def test_no_dumping_grounds() -> None:
    forbidden = re.compile(r"(utils?|commons?|misc|helpers?|help|tools?|stuff)$")
    offenders = [
        str(path)
        for path in tracked()
        if path.parts[0] in (*PACKAGES, "tests")
        and any(forbidden.fullmatch(part) for part in (*path.parts[:-1], path.stem))
    ]
    assert offenders == []


def test_no_production_module_is_named_like_a_test() -> None:
    # Flower drops such files from every bundle, and pytest would collect them.
    production = [path for path in tracked() if path.parts[0] in PACKAGES and path.suffix == ".py"]
    assert [str(path) for path in production if re.fullmatch(r"test_.*|.*_test|conftest", path.stem)] == []


def test_every_folder_with_tests_is_a_package() -> None:
    # Without tests/__init__.py, `import server` in a test would find tests/server.
    python = [path for path in tracked() if path.parts[0] == "tests" and path.suffix == ".py"]
    folders = {parent for path in python for parent in path.parents if parent != Path()}
    assert sorted(str(folder) for folder in folders if not (ROOT / folder / "__init__.py").exists()) == []


def test_every_package_folder_has_an_init_and_every_package_its_type_marker() -> None:
    python = [path for path in tracked() if path.parts[0] in PACKAGES and path.suffix == ".py"]
    folders = {path.parent for path in python}
    assert sorted(str(folder) for folder in folders if not (ROOT / folder / "__init__.py").exists()) == []
    assert all((ROOT / package / "py.typed").exists() for package in PACKAGES)


def test_module_names_are_plain_lower_case() -> None:
    python = [path for path in tracked() if path.parts[0] in PACKAGES and path.suffix == ".py"]
    assert [
        str(path) for path in python if not re.fullmatch(r"[a-z][a-z0-9_]*|__init__|__main__", path.stem)
    ] == []


def lock_lines() -> list[str]:
    return (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()


def test_lock_is_plain_pins_from_any_index() -> None:
    pin = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][0-9A-Za-z.!]*")
    assert [line for line in lock_lines() if not pin.fullmatch(line)] == []
    assert not re.search(r"://|@|\bfile:|\+cpu|\+cu\d", "\n".join(lock_lines()))


def test_lock_is_sorted_without_duplicates_and_without_the_project() -> None:
    names = [Requirement(line).name.lower() for line in lock_lines()]
    assert lock_lines() == sorted(lock_lines(), key=str.upper)  # as `sort -f` does
    assert len(names) == len(set(names))
    assert not {"semc", "pip"} & set(names)


def test_lock_pins_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["dev"]]
    wanted += project["build-system"]["requires"]
    pins = {normal(Requirement(line).name): Requirement(line) for line in lock_lines()}
    for line in wanted:
        requirement = Requirement(line)
        assert normal(requirement.name) in pins, f"{line}: run `make lock`"
        (version,) = [clause.version for clause in pins[normal(requirement.name)].specifier]
        assert requirement.specifier.contains(version, prereleases=True), f"{line}: the lock has {version}"


def test_lock_holds_the_build_of_torch_that_finds_a_gpu() -> None:
    assert any(re.match(r"(nvidia|cuda)-|triton==", line) for line in lock_lines())


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_ignore_patterns_are_anchored() -> None:
    # An unanchored `data/` would silently drop semc/data from git, wheel and bundle. Caches lie anywhere.
    anywhere = {".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".hypothesis/", ".import_linter_cache/"}
    anywhere |= {"__pycache__/", "*.egg-info/"}
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    assert [pattern for pattern in patterns if not pattern.startswith("/") and pattern not in anywhere] == []


def test_nothing_tracked_is_ignored() -> None:
    tracked()
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert listing.stdout == ""


def test_no_large_file_image_or_weights() -> None:
    large = [str(path) for path in tracked() if (ROOT / path).stat().st_size > MAX_BYTES]
    assert large == []
    data = re.compile(
        r"\.(png|jpe?g|bmp|gif|tiff?|dcm|dicom|nii|gz|mha|mhd|raw|mp4|avi|npy|npz|pt|pth|ckpt|safetensors|onnx|db)$",
        re.I,
    )
    assert [str(path) for path in tracked() if data.search(path.name)] == []


def test_no_private_key_is_tracked() -> None:
    marker = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{20}")
    assert [str(path) for path in tracked() if marker.search((ROOT / path).read_bytes())] == []
