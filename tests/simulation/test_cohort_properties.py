"""Random manifests of sites that number their patients alike, through every step that makes hospitals of them."""

from __future__ import annotations

from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from semc.config import DataConfig, load_site
from semc.datasets import build_site_data
from simulation.cohort import read_cohort
from simulation.inspect import inspect_source
from simulation.make_sites import SitesRequest, make_sites
from simulation.sites_summary import read_summary, sites_report

SITES = ("north", "south", "")
CLASSES = ("a", "b")
MOST_PATIENTS, MOST_FRAMES, NUM_COPIES = 12, 3, 6
SLOW_DISK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

Patient = tuple[str, int]
Row = tuple[str, str, Patient]
"""File, label, (site, number)."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures 0.png to 107.png, all different; copy_0.png to copy_5.png are the first six in other bytes."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(len(SITES) * MOST_PATIENTS * MOST_FRAMES):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(root / f"{number}.png")
    for number in range(NUM_COPIES):
        Image.open(root / f"{number}.png").convert("RGB").save(root / f"copy_{number}.png")
    return root


@st.composite
def manifests(draw: st.DrawFn) -> list[Row]:
    """Eight to twelve patients a site, numbered from 0 in each; up to three of the later frames are copies."""
    listed: list[Row] = []
    for site in draw(st.sampled_from([SITES, SITES[:2]])):
        for number in range(draw(st.integers(8, MOST_PATIENTS))):
            label = CLASSES[number % 2]
            for frame in range(draw(st.integers(1, MOST_FRAMES))):
                chosen = label if frame == 0 else draw(st.sampled_from(CLASSES))
                listed.append((f"{len(listed)}.png", chosen, (site, number)))
    copies = draw(st.sets(st.integers(0, NUM_COPIES - 1), max_size=3))
    places = draw(st.permutations(range(NUM_COPIES, len(listed))))
    for copy, place in zip(sorted(copies), places, strict=False):
        listed[place] = (f"copy_{copy}.png", *listed[place][1:])
    return listed


def official_split(patient: Patient) -> str:
    """Number 0 is tested on at north and trained on at south: the bare number would contradict itself."""
    site, number = patient
    return "test" if (number + SITES.index(site)) % 4 == 0 else "train"


def write_manifest(root: Path, listed: list[Row], column: str, *, official: bool) -> None:
    lines = [f"file,label,group,{column},split"]
    for file, label, (site, number) in listed:
        lines.append(f"{file},{label},{number},{site},{official_split((site, number)) if official else ''}")
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")


def places(root: Path, out: Path, partition: str, listed: list[Row]) -> dict[str, tuple[str, str]]:
    """Make hospitals and return the hospital and the split of every picture that one of them read."""
    request = {"source": str(root), "partition": partition, "num_sites": 2, "allow_ungrouped": False}
    found: dict[str, tuple[str, str]] = {}
    for name in make_sites(SitesRequest.model_validate(request), out):
        data = build_site_data(load_site(out / name / "site.yaml").data, DataConfig(classes=CLASSES), 2)
        for row in (*data.train, *data.validation, *data.test):
            assert row.path.name not in found, "one picture at two hospitals"
            found[row.path.name] = (name, row.split)
    assert set(found) <= {file for file, _, _ in listed}
    return found


@SLOW_DISK
@given(listed=manifests(), official=st.booleans(), partition=st.sampled_from(["by_centre", "iid"]))
def test_no_patient_on_two_sides_and_none_lost(
    folder: Path, listed: list[Row], official: bool, partition: str
) -> None:
    write_manifest(folder, listed, "site", official=official)
    with TemporaryDirectory(dir=folder.parent) as out:
        found = places(folder, Path(out), partition, listed)
    patient_of = {file: patient for file, _, patient in listed}
    sides: dict[Patient, set[tuple[str, str]]] = {}
    sides_of_picture: dict[str, set[tuple[str, str]]] = {}
    for file, side in found.items():
        sides.setdefault(patient_of[file], set()).add(side)
        sides_of_picture.setdefault(file.removeprefix("copy_"), set()).add(side)
    assert all(len(own) == 1 for own in sides.values())
    assert all(len(own) == 1 for own in sides_of_picture.values())
    pictures = [file.removeprefix("copy_") for file in patient_of]
    shares_one = {patient_of[file] for file in patient_of if pictures.count(file.removeprefix("copy_")) > 1}
    for file, patient in patient_of.items():
        if patient not in shares_one and (patient[0] or partition != "by_centre"):
            assert file in found, "only what copies contradict is left out"
    inspected = inspect_source([folder], images=False)
    assert (inspected.patients, inspected.patients_in_two_splits) == (len(set(patient_of.values())), 0)


def test_the_bare_number_would_lose_a_hospital(folder: Path) -> None:
    """Trap 6 with its control: under a column that is not known as the site, equal numbers are one patient."""
    listed = [
        (f"{place}.png", CLASSES[number % 2], (site, number))
        for place, (site, number, _) in enumerate(
            [(site, number, frame) for site in SITES[:2] for number in range(8) for frame in range(2)][:-1]
        )
    ]
    write_manifest(folder, listed, "site", official=False)
    kept = read_cohort(folder)
    assert (len(kept.rows), kept.num_left_out, len(kept.patients())) == (31, 0, 16)
    write_manifest(folder, listed, "hospital", official=False)
    bare = read_cohort(folder, centre_columns=["hospital"])
    assert (bare.num_left_out, len(bare.patients())) == (15, 8), "what the prefix protects from"
    with TemporaryDirectory(dir=folder.parent) as out:
        request = SitesRequest(source=str(folder), partition="iid", num_sites=2, centre_columns=("hospital",))
        make_sites(request, Path(out))
        console = Console(width=200, record=True, file=StringIO())
        console.print(sites_report(read_summary(Path(out))))
    assert "images left out, of patients who are mostly at another centre" in console.export_text()
    write_manifest(folder, listed, "hospital", official=True)
    assert inspect_source([folder], images=False).patients_in_two_splits > 0


def test_patients_of_unique_names_keep_them(folder: Path) -> None:
    """A new name would change the splits drawn from the same manifest; empty keys stay empty."""
    lines = ["file,label,group,site", "0.png,a,p1,north", "1.png,b,p2,south", "2.png,a,,south"]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    cohort = read_cohort(folder, allow_ungrouped=True)
    assert [row.group for row in cohort.rows] == ["p1", "p2", "image 4"]
    (folder / "manifest.csv").write_text("\n".join([*lines, "3.png,b,p1,south"]) + "\n")
    cohort = read_cohort(folder, allow_ungrouped=True)
    assert [row.group for row in cohort.rows] == ["north/p1", "south/p2", "image 4", "south/p1"]
