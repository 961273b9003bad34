from __future__ import annotations

import csv
import json
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp

import pytest
from rich.console import Console

from semc.config import DataConfig, load_site
from semc.datasets import SiteData, build_site_data, check_images
from semc.datasets.phantom import PhantomConfig, write_phantom
from semc.exit_codes import ExitCode, SemcError
from simulation.centres import site_name
from simulation.cli import main
from simulation.cohort import read_cohort
from simulation.make_sites import SiteCounts, SitesRequest, make_sites, read_site_counts, sites_table
from simulation.sites_summary import classes_table

REAL = Path(__file__).parents[2].parent / "shared" / "data"
PLANES = ("head", "abdomen", "femur")
SMALL = SitesRequest(
    classes=PLANES,
    image_size=32,
    patients_per_site=16,
    test_patients_per_site=6,
    frames_per_patient=3,
    class_prior=None,
    seed=4,
)


def read_sites(out: Path, classes: tuple[str, ...]) -> dict[str, SiteData]:
    """Read every site as its hospital would."""
    return {
        name: build_site_data(load_site(out / name / "site.yaml").data, DataConfig(classes=classes), 2)
        for name in read_site_counts(out)
    }


def patients_of(data: SiteData) -> set[str]:
    return {row.group.split("/", 1)[1] for row in (*data.train, *data.validation, *data.test)}


def write_index(root: Path, header: str, rows: list[tuple[str, ...]]) -> None:
    """Write a table whose files are phantom frames, one per row."""
    config = PhantomConfig(classes=PLANES, image_size=32, patients_per_centre=len(rows), frames_per_patient=1)
    write_phantom(config.model_copy(update={"centre_names": ("x",), "test_patients_per_centre": 0}), root)
    (root / "manifest.csv").unlink()
    files = sorted((root / "x").iterdir())
    with (root / "index.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(header.split(","))
        writer.writerows((f"x/{file.name}", *row) for file, row in zip(files, rows, strict=True))


def test_phantom_sites_are_complete_hospitals(tmp_path: Path) -> None:
    request = SMALL.model_copy(update={"site_names": ("north", "south", "west"), "partition": "by_centre"})
    counts = make_sites(request, tmp_path)
    assert list(counts) == ["north", "south", "west"]
    assert read_site_counts(tmp_path) == counts
    for name, data in read_sites(tmp_path, PLANES).items():
        count = counts[name]
        assert load_site(tmp_path / name / "site.yaml").site == name
        assert (len(data.train), len(data.validation), len(data.test)) == (
            count.num_train_images,
            count.num_validation_images,
            count.num_test_images,
        )
        assert count.num_train_images + count.num_validation_images == 16 * 3
        assert count.num_test_images == 6 * 3
        assert tuple(count.class_counts.values()) == data.class_counts
        assert list(count.class_counts) == list(PLANES)
        assert count.centre == name
        assert not count.ungrouped
        rows = (*data.train, *data.validation, *data.test)
        assert (
            check_images(
                rows, DataConfig(classes=PLANES), load_site(tmp_path / name / "site.yaml").data
            ).errors
            == ()
        )
        assert all(row.path.is_relative_to((tmp_path / name).resolve()) for row in rows)
    summary = json.loads((tmp_path / "sites.json").read_text())
    assert summary["synthetic"] is True
    assert summary["centre_kind"] == "synthetic"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "north",
        "phantom.json",
        "sites.json",
        "south",
        "west",
    ]


def test_the_same_request_makes_the_same_sites(tmp_path: Path) -> None:
    def content(request: SitesRequest, name: str) -> dict[str, bytes]:
        make_sites(request, tmp_path / name)
        files = [path for path in (tmp_path / name).rglob("*") if path.is_file()]
        return {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files}

    first = content(SMALL, "first")
    assert content(SMALL, "second") == first
    other = content(SMALL.model_copy(update={"num_sites": 2, "seed": 5}), "other")
    assert other.keys() != first.keys()


def test_sites_that_may_hold_keys_and_state_are_never_replaced(tmp_path: Path) -> None:
    name = min(make_sites(SMALL, tmp_path))
    (tmp_path / name / "site.key").write_text("mine")
    with pytest.raises(SemcError, match="already holds sites") as caught:
        make_sites(SMALL, tmp_path)
    assert caught.value.code is ExitCode.USAGE
    (tmp_path / "sites.json").unlink()
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(SemcError, match=f"already holds '{name}'"):
        make_sites(SMALL, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert (tmp_path / name / "site.key").read_text() == "mine"


def test_a_class_left_out_of_training_stays_in_the_test(tmp_path: Path) -> None:
    by_centre = SMALL.model_copy(update={"partition": "by_centre"})
    whole = make_sites(by_centre, tmp_path / "whole")
    name = min(whole)
    request = SitesRequest.model_validate({**by_centre.model_dump(), "without": [(name, "femur")]})
    lacking = make_sites(request, tmp_path / "lacking")
    assert whole[name].class_counts["femur"] > 0
    assert lacking[name].class_counts["femur"] == 0
    assert {k: v for k, v in lacking.items() if k != name} == {k: v for k, v in whole.items() if k != name}
    tests = [read_sites(tmp_path / which, PLANES)[name].test for which in ("whole", "lacking")]
    assert [row.path.name for row in tests[0]] == [row.path.name for row in tests[1]]
    assert 2 in {row.label for row in tests[1]}
    with pytest.raises(SemcError, match="no site 'nowhere'") as caught:
        make_sites(request.model_copy(update={"without": (("nowhere", "femur"),)}), tmp_path / "other")
    assert caught.value.code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--partition", "dirichlte"], "partition: "),
        (["--names", "North,south"], "site_names.0: "),
        (["--names", "a,a"], "names must differ"),
        (["--planes", "head,nonsense"], "classes"),
    ],
)
def test_wrong_options_are_told_in_one_line_and_write_nothing(
    tmp_path: Path,
    options: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.argv", ["semc-sim", "sites", "--out", str(tmp_path / "out"), *options])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == ExitCode.USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error 2 USAGE: ")
    assert told in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "label_skew", "quantity_skew"])
def test_synthetic_partitions_never_share_a_patient(tmp_path: Path, partition: str) -> None:
    update = {"partition": partition, "alpha": 2.0, "min_patients": 10, "seed": 1}
    counts = make_sites(SMALL.model_copy(update=update), tmp_path)
    assert list(counts) == ["site_1", "site_2", "site_3"]
    groups = [patients_of(data) for data in read_sites(tmp_path, PLANES).values()]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 3 * 22


def test_centre_columns_filters_and_a_patient_at_two_centres(tmp_path: Path) -> None:
    """The header of the fetal planes: machine x operator, core, repeats; one patient on two machines."""
    rows = [
        (PLANES[number % 3], f"P{number // 2}", ("Aloka", "Voluson E6")[number % 8 > 3], "Op. 1", "1", "")
        for number in range(64)
    ]
    rows += [
        (PLANES[0], "both", "Aloka", "Op. 1", "1", ""),
        (PLANES[0], "both", "Aloka", "Op. 1", "1", ""),
        (PLANES[0], "both", "Voluson E6", "Op. 1", "1", ""),
        (PLANES[0], "dup", "Aloka", "Op. 1", "1", "x/other.png"),
        (PLANES[0], "off", "Aloka", "Op. 1", "0", ""),
    ]
    write_index(tmp_path / "in", "file,label,group,machine,operator,core,exact_dup_of", rows)
    counts = make_sites(SitesRequest(source=str(tmp_path / "in")), tmp_path / "out")
    assert {name: count.centre for name, count in counts.items()} == {
        "aloka_op-1": "Aloka x Op. 1",
        "voluson-e6_op-1": "Voluson E6 x Op. 1",
    }
    data = read_sites(tmp_path / "out", tuple(sorted(PLANES)))
    assert "both" in patients_of(data["aloka_op-1"])
    assert "both" not in patients_of(data["voluson-e6_op-1"])
    everyone = set().union(*map(patients_of, data.values()))
    assert not everyone & {"dup", "off"}
    assert json.loads((tmp_path / "out" / "sites.json").read_text())["rows_left_out"] == 1


def test_centres_to_keep_and_those_too_small(tmp_path: Path) -> None:
    rows = [(PLANES[n % 3], f"a{n}", "large") for n in range(24)]
    rows += [(PLANES[n % 3], f"b{n}", "middle") for n in range(15)]
    rows += [(PLANES[0], f"c{n}", "single class") for n in range(9)]
    rows += [(PLANES[n], f"d{n}", "tiny") for n in range(2)]
    write_index(tmp_path / "in", "file,label,group,site", rows)

    def sites(**update: object) -> list[str]:
        request = SitesRequest.model_validate({"source": str(tmp_path / "in"), **update})
        return list(make_sites(request, Path(mkdtemp(dir=tmp_path))))

    assert sites() == ["large", "middle"]
    assert sites(num_sites=1) == ["large"]
    assert sites(partition="by_centre") == ["large", "middle"]
    assert sites(keep_centres=["middle"]) == ["middle"]
    with pytest.raises(SemcError) as caught:
        sites(keep_centres=["nowhere"])
    assert caught.value.code is ExitCode.USAGE
    with pytest.raises(SemcError, match="Site 'single-class'") as caught:
        sites(keep_centres=["single-class"])
    assert caught.value.code is ExitCode.CLASSES_TOO_FEW
    with pytest.raises(SemcError, match="no column 'ward'") as caught:
        sites(centre_columns=["ward"])
    assert caught.value.code is ExitCode.USAGE
    with pytest.raises(SemcError, match="No centre"):
        sites(partition="by_centre", where={"site": "tiny"})


def test_small_sources_are_pooled_where_the_table_asks_for_it(tmp_path: Path) -> None:
    rows = [(PLANES[n % 3], f"a{n}", "7", "linear") for n in range(12)]
    rows += [(PLANES[0], f"b{n}", "8", "linear") for n in range(8)] + [
        (PLANES[1], f"c{n}", "9", "convex") for n in range(8)
    ]
    write_index(tmp_path / "in", "file,label,group,source_id,probe", rows)
    counts = make_sites(SitesRequest(source=str(tmp_path / "in")), tmp_path / "out")
    assert list(counts) == ["7", "pooled"]
    assert counts["pooled"].centre == ""
    assert patients_of(read_sites(tmp_path / "out", tuple(sorted(PLANES)))["pooled"]) == {
        row[1] for row in rows if row[2] != "7"
    }


def test_lp2025_folders_are_divided_by_image_with_consent_only(tmp_path: Path) -> None:
    config = PhantomConfig(
        classes=PLANES,
        image_size=32,
        centre_names=("x",),
        patients_per_centre=12,
        test_patients_per_centre=6,
        frames_per_patient=3,
        class_prior=None,
    )
    write_phantom(config, tmp_path / "in", layout="lp2025")
    request = SitesRequest(source=str(tmp_path / "in"), num_sites=2, allow_ungrouped=True)
    counts = make_sites(request, tmp_path / "out")
    assert list(counts) == ["site_1", "site_2"]
    assert all(count.ungrouped for count in counts.values())
    assert sum(count.num_test_images for count in counts.values()) == 18
    assert sum(count.num_train_images + count.num_validation_images for count in counts.values()) == 36
    with pytest.raises(SemcError) as caught:
        make_sites(request.model_copy(update={"allow_ungrouped": False}), tmp_path / "other")
    assert caught.value.code is ExitCode.SPLIT_LEAK


def test_a_lone_row_without_patient_does_not_cost_the_others_theirs(tmp_path: Path) -> None:
    rows = [(PLANES[n % 3], f"a{n // 2}", "one") for n in range(30)] + [(PLANES[0], "", "one")]
    write_index(tmp_path / "in", "file,label,group,site", rows)
    request = SitesRequest(source=str(tmp_path / "in"), allow_ungrouped=True)
    counts = make_sites(request, tmp_path / "out")
    assert counts["one"].ungrouped
    with (tmp_path / "out" / "one" / "manifest.csv").open() as stream:
        groups = [row["group"] for row in csv.DictReader(stream)]
    assert groups.count("") == 1
    assert len(set(groups)) == 16


def test_a_site_too_small_for_validation_goes_without(tmp_path: Path) -> None:
    rows = [(label, f"p{n}", "one") for n, label in enumerate((PLANES[0], PLANES[0], PLANES[1], PLANES[1]))]
    write_index(tmp_path / "in", "file,label,group,site", rows)
    counts = make_sites(SitesRequest(source=str(tmp_path / "in"), test_fraction=0.5), tmp_path / "out")
    assert counts["one"].num_validation_images == 0
    assert load_site(tmp_path / "out" / "one" / "site.yaml").data.split.validation_fraction == 0


def test_folders_that_are_no_source(tmp_path: Path) -> None:
    with pytest.raises(SemcError) as caught:
        make_sites(SitesRequest(source=str(tmp_path / "none")), tmp_path / "out")
    assert caught.value.code is ExitCode.DATA_NOT_FOUND
    with pytest.raises(SemcError) as caught:
        read_site_counts(tmp_path)
    assert caught.value.code is ExitCode.DATA_NOT_FOUND


def site_counts(
    train: int, validation: int, test: int, train_patients: int, test_patients: int, classes: dict[str, int]
) -> SiteCounts:
    return SiteCounts(
        centre="",
        num_train_images=train,
        num_validation_images=validation,
        num_test_images=test,
        num_train_patients=train_patients,
        num_test_patients=test_patients,
        class_counts=classes,
        ungrouped=False,
    )


def test_site_names_and_table() -> None:
    assert site_name("Voluson E6 x Op. 1") == "voluson-e6_op-1"
    assert site_name("Ünï") == "n"
    assert site_name("...") == "centre"
    count = site_counts(9, 2, 3, 4, 1, {"head": 5, "femur": 4})
    table, classes = sites_table({"north": count}), classes_table({"north": count})
    headers = ["site", "train", "validation", "test", "train\npatients", "test\npatients"]
    assert [column.header for column in table.columns] == headers
    assert [list(column.cells) for column in table.columns] == [["north"], ["9"], ["2"], ["3"], ["4"], ["1"]]
    assert [list(column.cells) for column in classes.columns] == [["head", "femur"], ["5", "4"]]


def test_tables_of_five_sites_fit_eighty_columns_uncut() -> None:
    names = ["aloka_op-3", "other_other", "voluson-e6_op-1", "voluson-e6_op-2", "voluson-e6_other"]
    few = {"Trans-cerebellum": 5, "Trans-thalamic": 14, "Trans-ventricular": 44}
    count = site_counts(63, 15, 26, 44, 18, few)
    console = Console(width=80, record=True, file=StringIO())
    console.print(sites_table(dict.fromkeys(names, count)))
    shown = console.export_text(clear=False)
    assert all(name in shown for name in names)
    console.print(classes_table(dict.fromkeys(names, count)))
    assert "…" not in console.export_text()


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL / "fetal_brain_planes").is_dir(), reason="no real images beside the checkout")
def test_the_real_standard_planes_become_three_hospitals(tmp_path: Path) -> None:
    source = REAL / "fetal_brain_planes"
    cohort = read_cohort(source)
    assert cohort.classes == ("Trans-cerebellum", "Trans-thalamic", "Trans-ventricular")
    assert len(cohort.rows) + cohort.num_left_out == 544 - 17
    counts = make_sites(SitesRequest(source=str(source)), tmp_path)
    assert {name: count.centre for name, count in counts.items()} == {
        "aloka_op-3": "Aloka x Op. 3",
        "voluson-e6_op-1": "Voluson E6 x Op. 1",
        "voluson-e6_op-2": "Voluson E6 x Op. 2",
    }
    sites = read_sites(tmp_path, cohort.classes)
    groups = [patients_of(data) for data in sites.values()]
    assert sum(map(len, groups)) == len(set().union(*groups)), "no patient at two hospitals"
    for data in sites.values():
        splits = [{row.group for row in rows} for rows in (data.train, data.validation, data.test)]
        assert sum(map(len, splits)) == len(set().union(*splits))
        assert min(data.class_counts) > 0
    images = sum(
        count.num_train_images + count.num_validation_images + count.num_test_images
        for count in counts.values()
    )
    assert 430 < images < 452


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL / "pocus_cc_by").is_dir(), reason="no real images beside the checkout")
def test_the_real_lung_frames_by_source(tmp_path: Path) -> None:
    counts = make_sites(SitesRequest(source=str(REAL / "pocus_cc_by")), tmp_path)
    assert {name: count.centre for name, count in counts.items()} == {"29": "29", "30": "30", "pooled": ""}
    data = read_sites(tmp_path, ("covid", "pneumonia", "regular", "viral"))
    assert sum(len(d.train) + len(d.validation) + len(d.test) for d in data.values()) == 272
    assert sum(len(patients_of(d)) for d in data.values()) == 17
