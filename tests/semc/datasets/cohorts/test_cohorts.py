"""Recognition of layouts, their traps, and cohorts joined on shared classes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from semc.datasets.cohort_table import CohortOptions
from semc.datasets.cohorts import COHORTS, join_tables, read_cohort_table
from semc.datasets.phantom import PhantomConfig
from semc.datasets.phantom.layouts import write_layout
from semc.exit_codes import ExitCode, SemcError

CONFIG = PhantomConfig(
    image_size=32,
    centre_names=("north", "south"),
    patients_per_centre=6,
    test_patients_per_centre=2,
    frames_per_patient=4,
    class_prior=None,
)
METADATA = Path(__file__).parents[4].parent / "shared" / "data" / "fetal_planes_metadata"


def refused(code: ExitCode, source: Path, name: str | None = None, task: str | None = None) -> str:
    with pytest.raises(SemcError) as caught:
        read_cohort_table(source, name, CohortOptions(task))
    assert caught.value.code is code
    assert "secret" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("layouts")
    for name in ("fetal_planes", "african_planes", "camus", "pocus"):
        write_layout(CONFIG, name, root / name)
    return root


def test_a_folder_is_refused_for_the_right_reason(tmp_path: Path, layouts: Path) -> None:
    refused(ExitCode.DATA_NOT_FOUND, tmp_path / "none")
    refused(ExitCode.DATA_NOT_FOUND, tmp_path)
    assert "layout of fpus23" in refused(ExitCode.DATA_NOT_FOUND, layouts / "camus", "fpus23")
    assert "camus" in refused(ExitCode.USAGE, layouts / "camus", "heart")
    assert "view_phase, view, quality" in refused(ExitCode.USAGE, layouts / "camus", task="other")
    assert "leave --task out" in refused(ExitCode.USAGE, layouts / "african_planes", task="plane")


def test_a_table_of_ones_own_comes_first(tmp_path: Path) -> None:
    write_layout(CONFIG, "camus", tmp_path)
    assert read_cohort_table(tmp_path).cohort == "camus"
    (tmp_path / "manifest.csv").write_text("file,label,group\na.png,x,1\n")
    assert read_cohort_table(tmp_path).cohort == "manifest"
    assert read_cohort_table(tmp_path, "camus").cohort == "camus"


def test_phantom_layouts_never_pass_as_real(layouts: Path) -> None:
    """The same folder without the phantom's mark is what a real download would be."""
    table = read_cohort_table(layouts / "african_planes")
    assert table.synthetic
    assert {rule.kind for rule in table.centres} == {"synthetic"}
    assert table.centre_rule(("Train",)).kind == "synthetic"
    (layouts / "african_planes" / "phantom.json").rename(layouts / "mark")
    real = read_cohort_table(layouts / "african_planes")
    (layouts / "mark").rename(layouts / "african_planes" / "phantom.json")
    assert [rule.kind for rule in real.centres] == ["real"]
    assert real.centre_rule(("Train",)).kind == "acquisition"
    assert not real.synthetic


def test_patient_numbers_that_restart_are_other_patients(layouts: Path) -> None:
    """Trap 6, with the control: the bare number mixes patients of two countries and of both splits."""
    images = read_cohort_table(layouts / "african_planes").images
    assert (images.groupby("group")["Center"].nunique() == 1).all()
    assert (images.groupby("group")["split"].nunique() == 1).all()
    assert images["group"].nunique() > images["Patient_num"].nunique()
    assert (images.groupby("Patient_num")["Center"].nunique() == 2).any()


def test_the_semicolon_table_loses_no_row(layouts: Path) -> None:
    """Trap 5: `;`, a header and cells with trailing spaces, names without `.png`."""
    raw = (layouts / "fetal_planes" / "FETAL_PLANES_ZENODO" / "FETAL_PLANES_DB_data.csv").read_text()
    assert raw.splitlines()[0].endswith(";Train ")
    assert ".png" not in raw
    table = read_cohort_table(layouts / "fetal_planes")
    assert len(table.images) == len(raw.splitlines()) - 1
    assert set(table.images["split"]) == {"train", "test"}
    assert all((table.root / file).is_file() for file in table.images["file"])
    assert [rule.columns for rule in table.centres] == [
        ("US_Machine",),
        ("Operator",),
        ("US_Machine", "Operator"),
    ]
    brain = read_cohort_table(layouts / "fetal_planes", options=CohortOptions("brain_plane")).images
    assert len(brain) == (table.images["label"] == "Fetal brain").sum()
    assert set(brain["label"]) == {"Trans-thalamic", "Trans-cerebellum", "Trans-ventricular", "Other"}


def test_an_official_split_that_is_no_split(tmp_path: Path) -> None:
    text = "Patient_num,Plane,Train,Center,Filename\n1,Fetal brain,secret,Egypt,a\n"
    (tmp_path / "African_planes_database.csv").write_text(text)
    assert "Row 2, column 'Train'" in refused(ExitCode.MANIFEST_INVALID, tmp_path)


def test_camus_labels_by_rule(layouts: Path) -> None:
    counts = {
        task: read_cohort_table(layouts / "camus", options=CohortOptions(task)).images["label"].value_counts()
        for task in ("view", "view_phase", "quality")
    }
    assert dict(counts["view"]) == {"2CH": 16, "4CH": 16}
    assert dict(counts["view_phase"]) == {"2CH_ED": 8, "2CH_ES": 8, "4CH_ED": 8, "4CH_ES": 8}
    assert sum(counts["quality"]) == 32
    table = read_cohort_table(layouts / "camus")
    assert table.centres[0].columns == (), "one hospital: no centres unless asked for"
    per_patient = table.images.groupby("group")["patient_quality"]
    assert (per_patient.nunique() == 1).all()
    assert (table.images.groupby("acquisition")["quality"].nunique() == 1).all(), "quality is per view"
    quality = read_cohort_table(layouts / "camus", options=CohortOptions("quality"))
    assert ("patient_quality",) not in [rule.columns for rule in quality.centres]


def test_camus_that_contradicts_itself(tmp_path: Path) -> None:
    write_layout(CONFIG, "camus", tmp_path)
    base = tmp_path / "CAMUS_public"
    info = base / "database_nifti" / "patient0002" / "Info_4CH.cfg"
    text = info.read_text()
    info.write_text(text.replace("ImageQuality: ", "ImageQuality: secret"))
    assert "Info_4CH.cfg of patient folder 2" in refused(ExitCode.MANIFEST_INVALID, tmp_path)
    info.write_text(text.replace("ED: 4", "ED: 0"))
    refused(ExitCode.MANIFEST_INVALID, tmp_path)
    info.write_text(text)
    (base / "database_nifti" / "patient0002" / "patient0002_2CH_ES.nii.gz").unlink()
    message = refused(ExitCode.DATA_UNREADABLE, tmp_path)
    assert "Patient folder 2 lacks the 2CH ES still" in message
    assert "patient0002" not in message
    write_layout(CONFIG, "camus", tmp_path / "again")
    lists = tmp_path / "again" / "CAMUS_public" / "database_split"
    (lists / "subgroup_testing.txt").write_text(
        (lists / "subgroup_testing.txt").read_text() + "patient0001\n"
    )
    assert "patient0001" not in refused(ExitCode.SPLIT_LEAK, tmp_path / "again")
    (lists / "subgroup_testing.txt").unlink()
    refused(ExitCode.MANIFEST_INVALID, tmp_path / "again")


def test_fetal_planes_and_african_planes_join_on_four_classes(layouts: Path) -> None:
    tables = [read_cohort_table(layouts / name) for name in ("african_planes", "fetal_planes")]
    joined = join_tables(tables)
    rule = joined.centres[0]
    assert set(joined.images["label"]) == {"Fetal abdomen", "Fetal brain", "Fetal femur", "Fetal thorax"}
    assert set(joined.centre_of(rule)) == {"Algeria", "Egypt", "Aloka", "Voluson E6"}
    assert joined.synthetic
    expected = sum(table.images["label"].isin(set(joined.images["label"])).sum() for table in tables)
    assert len(joined.images) == expected
    assert (joined.images.groupby("group")["cohort"].nunique() == 1).all()
    assert all((joined.root / file).is_file() for file in joined.images["file"])
    assert set(joined.split_of(rule)) == {"train", "test"}
    with pytest.raises(SemcError, match="share 0 class") as caught:
        join_tables([tables[0], read_cohort_table(layouts / "pocus")])
    assert caught.value.code is ExitCode.USAGE


def test_every_reader_has_a_name() -> None:
    assert all(name == reader.name for name, reader in COHORTS.items())


@pytest.mark.real_data
@pytest.mark.skipif(not METADATA.is_dir(), reason="the table of fetal planes is not beside the checkout")
def test_the_real_table_of_fetal_planes() -> None:
    table = read_cohort_table(METADATA)
    assert (table.cohort, len(table.images), table.images["group"].nunique()) == (
        "fetal_planes",
        12_400,
        1792,
    )
    assert dict(table.images["label"].value_counts()) == {
        "Other": 4213,
        "Fetal brain": 3092,
        "Fetal thorax": 1718,
        "Maternal cervix": 1626,
        "Fetal femur": 1040,
        "Fetal abdomen": 711,
    }
    assert (table.images.groupby("group")["split"].nunique() == 1).all(), "official split by patient"
    shares = pd.crosstab(table.images["US_Machine"], table.images["label"], normalize="index")
    assert shares.loc["Aloka", "Other"] > 0.5 > 0.15 > shares.loc["Voluson E6", "Other"]
