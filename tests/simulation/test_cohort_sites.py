"""Hospitals made of every known layout, as a user makes them."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from semc.config import DataConfig, load_site
from semc.datasets import SiteData, build_site_data
from semc.datasets.cohorts import read_cohort_table
from semc.datasets.phantom import PhantomConfig
from semc.datasets.phantom.layouts import write_layout
from semc.exit_codes import ExitCode, SemcError
from simulation.cohort import read_cohort, read_tables
from simulation.make_sites import SitesRequest, make_sites, read_site_counts
from simulation.sites_summary import read_summary, sites_report

CONFIG = PhantomConfig(
    image_size=32,
    centre_names=("north", "south"),
    patients_per_centre=15,
    test_patients_per_centre=5,
    frames_per_patient=4,
    class_prior=None,
)


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layouts")
    for name in (
        "fetal_planes",
        "african_planes",
        "camus",
        "camus_older",
        "fpus23",
        "fpus23_planes",
        "fetal_brain_planes",
        "pocus_repository",
        "dicom",
    ):
        write_layout(CONFIG, name, root / name)
    return root


def sites_of(out: Path, source: Path, **update: object) -> dict[str, SiteData]:
    """Make sites and read each as its hospital would."""
    counts = make_sites(SitesRequest.model_validate({"source": str(source), "num_sites": 9, **update}), out)
    classes = tuple(next(iter(counts.values())).class_counts)
    return {
        name: build_site_data(load_site(out / name / "site.yaml").data, DataConfig(classes=classes), 2)
        for name in read_site_counts(out)
    }


def refused(code: ExitCode, out: Path, source: Path, **update: object) -> str:
    with pytest.raises(SemcError) as caught:
        sites_of(out, source, **update)
    assert caught.value.code is code
    return caught.value.problem


def rows(data: SiteData) -> list[tuple[str, str]]:
    """Return (group, split) of every image."""
    return [(row.group, row.split) for row in (*data.train, *data.validation, *data.test)]


@pytest.mark.parametrize(
    ("layout", "update", "names"),
    [
        ("fetal_planes", {}, ["aloka", "voluson-e6"]),
        ("african_planes", {}, ["algeria", "egypt"]),
        ("fetal_brain_planes", {}, ["voluson-e6_op-1", "voluson-e6_op-2"]),
        ("pocus_repository", {}, ["7", "8"]),
        ("dicom", {}, ["north", "south"]),
        ("camus", {"partition": "iid", "num_sites": 2}, ["site_1", "site_2"]),
        ("camus_older", {"partition": "iid", "num_sites": 2}, ["site_1", "site_2"]),
        ("camus", {"centre_columns": ["patient_quality"]}, ["medium", "poor"]),
        ("fpus23", {}, ["aroundabd", "aroundarms", "aroundhead", "aroundlegs", "longrec"]),
        ("fpus23", {"task": "view"}, ["hdvb", "hdvf", "huvb", "huvf"]),
        ("fpus23_planes", {"task": "plane", "partition": "iid", "num_sites": 2}, ["site_1", "site_2"]),
    ],
)
def test_each_cohort_becomes_hospitals(
    tmp_path: Path, layouts: Path, layout: str, update: dict[str, object], names: list[str]
) -> None:
    sites = sites_of(tmp_path, layouts / layout, **update)
    assert list(sites) == names
    everyone: set[str] = set()
    for name, data in sites.items():
        by_group: dict[str, set[str]] = {}
        for group, split in rows(data):
            by_group.setdefault(group, set()).add(split)
        assert all(len(splits) == 1 for splits in by_group.values()), "no patient on both sides of a split"
        own = {group.removeprefix(f"{name}/") for group in by_group}
        assert not own & everyone, "no patient at two sites"
        everyone |= own
        files = [path for path in (tmp_path / name / "images").rglob("*") if path.is_file()]
        assert {path.suffix for path in files} <= {".png", ".jpg"}, "formats that a site reads"
        assert len(files) == len(rows(data))
    summary = json.loads((tmp_path / "sites.json").read_text())
    assert (summary["synthetic"], summary["centre_kind"]) == (True, "synthetic")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_real_folder_keeps_its_kind_only_by_centre(tmp_path: Path, layouts: Path) -> None:
    shutil.copytree(layouts / "african_planes", tmp_path / "in")
    (tmp_path / "in" / "phantom.json").unlink()
    sites_of(tmp_path / "a", tmp_path / "in")
    summary = json.loads((tmp_path / "a" / "sites.json").read_text())
    assert (summary["synthetic"], summary["centre_kind"], summary["cohort"]) == (
        False,
        "real",
        "african_planes",
    )
    sites_of(tmp_path / "b", tmp_path / "in", partition="iid", num_sites=2)
    summary = json.loads((tmp_path / "b" / "sites.json").read_text())
    assert (summary["partition"], summary["centre_kind"]) == ("iid", "synthetic")


def test_fpus23_trains_on_one_probe_and_tests_on_the_other(tmp_path: Path, layouts: Path) -> None:
    for data in sites_of(tmp_path, layouts / "fpus23", task="view").values():
        assert {row.group.rsplit("_", 1)[1] for row in data.train} == {"h"}
        assert {row.group.rsplit("_", 1)[1] for row in data.test} == {"v"}
        assert data.validation == ()


def test_centres_of_one_class_are_refused_with_the_reason(tmp_path: Path, layouts: Path) -> None:
    """Trap 3; control: the same streams by sweep are sites."""
    fpus23 = layouts / "fpus23"
    by_centre = {"partition": "by_centre", "centre_columns": ["stream"]}
    problem = refused(ExitCode.USAGE, tmp_path, fpus23, **by_centre)
    assert problem == "Each of the 39 centres holds a single class: the centre gives the class away."
    by_sweep = {"partition": "by_centre", "centre_columns": ["sweep"], "task": "view"}
    problem = refused(ExitCode.USAGE, tmp_path, fpus23, view_source="folder", **by_sweep)
    assert "Each of the 4 centres" in problem
    assert list(sites_of(tmp_path, fpus23, **by_sweep)) == ["aroundlegs"], "the tags' noise gives it two"
    summary = read_summary(tmp_path)
    left_out = summary.centres_left_out
    console = Console(width=120, record=True, file=StringIO())
    console.print(sites_report(summary))
    shown = console.export_text()
    assert "sites by sweep: synthetic" in shown
    assert "left out, a single class: the centre gives it away: aroundarms" in shown
    assert set(left_out) == {"aroundabd", "aroundarms", "aroundhead"}
    assert set(left_out.values()) == {"a single class: the centre gives it away"}
    assert "no centres" in refused(
        ExitCode.USAGE, tmp_path / "camus", layouts / "camus", partition="by_centre"
    )
    assert len(sites_of(tmp_path / "more", fpus23, partition="by_centre")) == 5


def test_a_refused_site_leaves_nothing_behind(tmp_path: Path, layouts: Path) -> None:
    """Sweep and probe: one stream per pose, so no stream-disjoint split exists inside."""
    finest = {"centre_columns": ["sweep", "probe"], "num_sites": 10}
    refused(ExitCode.SPLIT_EMPTY, tmp_path, layouts / "fpus23", **finest)
    assert list(tmp_path.iterdir()) == []
    without = {"test_fraction": 0.0, "validation_fraction": 0.0}
    assert len(sites_of(tmp_path, layouts / "fpus23", **finest, **without)) == 10


def test_the_two_fetal_cohorts_join_into_their_centres(tmp_path: Path, layouts: Path) -> None:
    african, fetal = layouts / "african_planes", tmp_path / "fetal"
    write_layout(CONFIG.model_copy(update={"seed": 9}), "fetal_planes", fetal)
    sites_of(tmp_path / "out", african, joined_with=[str(fetal)])
    made = json.loads((tmp_path / "out" / "sites.json").read_text())["sites"]
    assert list(made) == ["algeria", "aloka", "egypt", "voluson-e6"]
    assert len(made["aloka"]["class_counts"]) == 4
    joined = read_tables([african, layouts / "fetal_planes"])
    assert {row.centre for row in read_cohort(joined).rows} == {"Algeria", "Egypt", "Voluson E6"}, (
        "the same pictures in both cohorts are one patient's, and go to one centre"
    )


def test_marked_repeats_and_images_outside_the_core_are_left_out(layouts: Path) -> None:
    table = read_cohort_table(layouts / "fetal_brain_planes")
    files = {row.path.name for row in read_cohort(table).rows}
    core = table.images[table.images["core"] == "1"]
    expected = core[core["exact_dup_of"] == ""]
    assert files == {Path(file).name for file in expected["file"]}
    assert len(expected) < len(core) < len(table.images)


def plant(root: Path, source: str, target: str) -> None:
    """Copy one picture over another."""
    shutil.copyfile(root / source, root / target)


def test_a_copy_under_another_patient_joins_them_and_the_held_out_side_stays(tmp_path: Path) -> None:
    """Trap 7: same label merges; across the official split the training side is left out; labels quarantine."""
    write_layout(CONFIG, "african_planes", tmp_path)
    images = read_cohort_table(tmp_path).images

    def pick(split: str, label: str, number: int) -> str:
        chosen = images[(images["split"] == split) & (images["label"] == label)]
        return str(chosen.drop_duplicates("group")["file"].iloc[number])

    def group_of(file: str) -> str:
        return str(images["group"][images["file"] == file].iloc[0])

    before = read_cohort(tmp_path)
    brain = [pick("train", "Fetal brain", n) for n in range(3)]
    held_out = pick("test", "Fetal brain", 0)
    plant(tmp_path, brain[0], brain[1])
    merged = read_cohort(tmp_path)
    by_file = {row.path.relative_to(merged.root).as_posix(): row for row in merged.rows}
    assert by_file[brain[0]].group == by_file[brain[1]].group
    assert len(merged.patients()) == len(before.patients()) - 1
    assert merged.num_left_out == 0
    plant(tmp_path, held_out, brain[2])
    across = read_cohort(tmp_path)
    files = {row.path.relative_to(across.root).as_posix() for row in across.rows}
    assert held_out in files
    lost = images["file"][images["group"] == group_of(brain[2])]
    assert not files & set(lost), "no image of the training patient who is also a test patient"
    assert across.num_left_out == len(lost)
    femur = pick("train", "Fetal femur", 0)
    if group_of(femur) == group_of(brain[2]):
        femur = pick("train", "Fetal femur", 1)
    plant(tmp_path, brain[0], femur)
    contradicted = read_cohort(tmp_path)
    files = {row.path.relative_to(contradicted.root).as_posix() for row in contradicted.rows}
    assert not files & {brain[0], brain[1], femur}, "one picture under two labels is quarantined, every copy"
