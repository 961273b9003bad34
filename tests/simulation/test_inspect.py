from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from semc.datasets.phantom import PhantomConfig
from semc.datasets.phantom.layouts import write_layout
from semc.exit_codes import SemcError
from simulation.cli import app
from simulation.inspect import Inspection, inspect_source
from simulation.inspect_report import inspection_report
from simulation.near_duplicates import near_duplicates
from simulation.shortcuts import shortcut

REAL = Path(__file__).parents[2].parent / "shared" / "data"
CONFIG = PhantomConfig(
    image_size=64,
    centre_names=("north", "south"),
    patients_per_centre=8,
    test_patients_per_centre=3,
    frames_per_patient=3,
    class_prior=None,
)


def text_of(found: Inspection) -> str:
    console = Console(width=200, record=True, file=StringIO())
    console.print(inspection_report(found))
    return console.export_text()


def test_a_phantom_cohort_and_its_size_shortcut(tmp_path: Path) -> None:
    """African layout: one image size per country, so size alone names the centre."""
    written = write_layout(CONFIG, "african_planes", tmp_path)
    found = inspect_source([tmp_path])
    assert found.images == len(written)
    assert found.patients == len({still.frame.patient for still in written})
    assert {facts.name: facts.images for facts in found.classes} == dict(
        pd.Series([still.label for still in written]).value_counts()
    )
    assert sum(found.splits.values()) == found.images
    (centres,) = found.centres
    assert (centres.columns, centres.kind, centres.num_centres) == (("Center",), "synthetic", 2)
    assert sum(sum(counts.values()) for counts in centres.counts.values()) == found.images
    pictures = found.pictures
    assert pictures is not None
    assert pictures.images == found.images
    assert pictures.by_centre["Algeria"].sizes.keys().isdisjoint(pictures.by_centre["Egypt"].sizes)
    assert pictures.centre_from_size is not None
    assert pictures.centre_from_size.cue_accuracy == 1.0
    assert pictures.class_from_size.gain < 0.2
    assert any("image size alone predicts" in warning and "centre" in warning for warning in found.warnings)
    assert pictures.near_duplicates.across_patients == 0
    shown = text_of(found)
    assert "Algeria" in shown
    assert "warning: the image size" in shown
    assert Inspection.model_validate_json(found.model_dump_json()) == found


def test_centres_that_give_the_class_away(tmp_path: Path) -> None:
    write_layout(CONFIG, "fpus23", tmp_path)
    found = inspect_source([tmp_path], task="view", images=False)
    by_columns = {facts.columns: facts for facts in found.centres}
    assert list(by_columns) == [("pose",), ("pose", "probe"), ("sweep",), ("stream",)]
    assert by_columns["pose",].single_class == ()
    assert abs(by_columns["pose",].class_from_centre.gain) < 0.1
    assert set(by_columns["sweep",].single_class) == {"aroundabd", "aroundarms", "aroundhead"}
    assert by_columns["sweep",].class_from_centre.cue_accuracy > 0.9
    assert any("by sweep (synthetic) predicts" in warning for warning in found.warnings)
    assert not any("by pose (synthetic) predicts" in warning for warning in found.warnings)
    assert found.pictures is None


def test_planted_copies_are_reported_and_nothing_is_merged(tmp_path: Path) -> None:
    """A picture a little brighter under another patient, split and label; a control stays unreported."""
    write_layout(CONFIG, "manifest", tmp_path)
    lines = (tmp_path / "manifest.csv").read_text().splitlines()
    cells = lines[1].split(",")
    copy = np.asarray(Image.open(tmp_path / cells[0])).astype(float) * 0.95 + 6
    (tmp_path / "north" / "copy.png").unlink(missing_ok=True)
    Image.fromarray(copy.astype(np.uint8)).save(tmp_path / "north" / "copy.png")
    other = "liver" if cells[1] != "liver" else "head"
    lines.append(f"north/copy.png,{other},stranger,north,test,c,d,0")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    found = inspect_source([tmp_path])
    assert found.pictures is not None
    alike = found.pictures.near_duplicates
    assert (alike.across_patients, alike.across_labels, alike.patients_involved) == (1, 1, 2)
    assert (alike.across_splits, alike.splits_open, alike.across_centres) == (1, 0, 0)
    assert "look alike (1 across splits, 0 across centres, 1 across labels)" in text_of(found)
    assert [pair[:2] for pair in alike.examples] == [(2, len(lines))]
    assert any("look alike" in warning for warning in found.warnings)
    assert found.images == len(lines) - 1


def test_a_split_still_to_be_cut_is_not_called_uncrossed(tmp_path: Path) -> None:
    """Pairs of two hospitals, without official splits; the control is the test above, with them."""
    write_layout(CONFIG, "pocus", tmp_path)
    lines = (tmp_path / "index.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    own = rows[0]
    other = next(row for row in rows if row["source_id"] != own["source_id"] and row["label"] == own["label"])
    (tmp_path / other["file"]).write_bytes((tmp_path / own["file"]).read_bytes())
    found = inspect_source([tmp_path])
    assert found.pictures is not None
    alike = found.pictures.near_duplicates
    assert (alike.across_patients, alike.across_splits, alike.splits_open) == (1, 0, 1)
    assert (alike.across_centres, alike.across_labels) == (1, 0)
    shown = text_of(found)
    assert "1 in splits not cut yet, 1 across centres, 0 across labels" in shown
    assert "0 across splits" not in shown


def test_without_centres_none_are_crossed_or_uncrossed(tmp_path: Path) -> None:
    write_layout(CONFIG, "lp2025", tmp_path)
    first, second = sorted((tmp_path / "train").glob("*/*.*"))[:2]
    second.write_bytes(first.read_bytes())
    found = inspect_source([tmp_path])
    assert found.pictures is not None
    assert found.pictures.near_duplicates.across_centres is None
    assert "across centres" not in text_of(found)
    assert "look alike (0 across splits, 0 across labels)" in text_of(found)


def test_missing_pictures_are_counted_and_ungrouped_images_warned_of(tmp_path: Path) -> None:
    write_layout(CONFIG, "lp2025", tmp_path)
    found = inspect_source([tmp_path])
    assert found.ungrouped_images == found.images == found.patients
    assert "not be patient-disjoint" in found.warnings[0]
    assert "no centres" in text_of(found)
    write_layout(CONFIG, "pocus", tmp_path / "pocus")
    next((tmp_path / "pocus" / "head").iterdir()).unlink()
    pocus = inspect_source([tmp_path / "pocus"])
    assert pocus.pictures is not None
    assert len(pocus.pictures.unreadable_rows) == 1
    assert any("1 pictures are missing" in warning for warning in pocus.warnings)


def test_near_duplicates_equal_a_slow_loop() -> None:
    rng = np.random.default_rng(0)
    hashes = list(rng.random((90, 256)) < 0.5)
    for place in range(30):
        near = hashes[place].copy()
        near[rng.choice(256, place, replace=False)] ^= True
        hashes[60 + place] = near
    rows = pd.DataFrame(
        {
            "group": rng.integers(0, 12, 90).astype(str),
            "split": rng.choice(["train", "test", ""], 90),
            "centre": rng.choice(["north", "south", ""], 90),
            "label": rng.choice(["a", "b"], 90),
        },
        index=range(100, 190),
    )
    pairs = [
        (i, j)
        for i in range(90)
        for j in range(i + 1, 90)
        if (hashes[i] != hashes[j]).sum() <= 20 and rows["group"].iloc[i] != rows["group"].iloc[j]
    ]
    found = near_duplicates(hashes, rows)
    assert 10 < len(pairs) == found.across_patients
    for name, value in (("centre", found.across_centres), ("label", found.across_labels)):
        assert value == sum(rows[name].iloc[i] != rows[name].iloc[j] for i, j in pairs)
    splits = [{rows["split"].iloc[i], rows["split"].iloc[j]} for i, j in pairs]
    assert found.splits_open == sum("" in both for both in splits) > 0
    assert found.across_splits == sum(both == {"train", "test"} for both in splits) > 0
    assert {pair[:2] for pair in found.examples} <= {(i + 100, j + 100) for i, j in pairs}


def test_near_duplicates_of_many_images_are_quick() -> None:
    hashes = list(np.random.default_rng(0).random((6000, 256)) < 0.5)
    hashes[5000] = hashes[17]
    rows = pd.DataFrame({"group": [str(n) for n in range(6000)], "split": "", "centre": "", "label": "a"})
    assert near_duplicates(hashes, rows).examples == ((17, 5000, 0),)


def test_a_shortcut_is_judged_on_other_patients() -> None:
    """Oracle: a loop over images; a cue unique to each patient is worth nothing."""
    rng = np.random.default_rng(1)
    group = pd.Series(rng.integers(0, 25, 300).astype(str))
    cue = pd.Series([f"c{int(name) % 4}" for name in group])
    target = pd.Series(
        [name if rng.random() < 0.7 else "c0" for name in cue.where(rng.random(300) < 0.8, "c1")]
    )
    found = shortcut(cue, target, group)
    order = list(pd.factorize(target)[1])

    def vote(mask: pd.Series) -> str:
        counts = target[mask].value_counts()
        return str(min(counts.index, key=lambda name: (-counts[name], order.index(name))))

    cue_right = sum(vote((cue == cue[i]) & (group != group[i])) == target[i] for i in range(300))
    blind_right = sum(vote(group != group[i]) == target[i] for i in range(300))
    assert found.cue_accuracy == pytest.approx(cue_right / 300)
    assert found.blind_accuracy == pytest.approx(blind_right / 300)
    assert found.gain > 0.1
    own = shortcut(group, target, group)
    assert own.gain == pytest.approx(0)
    assert own.cramers_v > 0.5, "the association alone would have been believed"
    assert shortcut(pd.Series(["x"] * 300), target, group).cramers_v == 0


def test_the_commands_as_a_user_types_them(tmp_path: Path) -> None:
    def command(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments])

    folder, out = str(tmp_path / "c"), str(tmp_path / "sites")
    made = command("phantom", "--write-as", "camus", "--out", folder, "--patients", "9", "--image-size", "32")
    assert made.output.startswith("48 synthetic images")
    found = command("inspect", folder, "--task", "view", "--format", "json")
    assert {entry["name"] for entry in json.loads(found.output)["classes"]} == {"2CH", "4CH"}
    assert "82.13 is not a target" not in found.output, "a phantom's note is the phantom's"
    sites = command(
        "sites",
        "--from",
        folder,
        "--cohort",
        "camus",
        "--task",
        "view",
        "--partition",
        "iid",
        "--sites",
        "2",
        "--out",
        out,
    )
    assert sites.exit_code == 0
    assert "sites by iid: synthetic" in sites.output
    wrong = command("inspect", folder, "--task", "heart")
    assert isinstance(wrong.exception, SemcError)
    assert wrong.exception.problem == "The cohort camus has no task 'heart'."


@pytest.mark.real_data
@pytest.mark.skipif(not (REAL / "pocus_cc_by").is_dir(), reason="no real images beside the checkout")
def test_real_lung_frames_warn_that_the_source_gives_the_class_away() -> None:
    found = inspect_source([REAL / "pocus_cc_by"])
    assert (found.images, found.patients, found.centres[0].num_centres) == (272, 17, 8)
    assert len(found.centres[0].single_class) == 6
    assert any("by source_id (acquisition)" in warning for warning in found.warnings)
    assert found.pictures is not None
    assert found.pictures.near_duplicates.across_patients == 0


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not (REAL / "fetal_planes_metadata").is_dir(), reason="no real table beside the checkout")
def test_the_real_table_without_images_shows_the_machines_skew() -> None:
    found = inspect_source([REAL / "fetal_planes_metadata"])
    assert (found.images, found.pictures) == (12_400, None)
    machines = found.centres[0]
    assert machines.counts["Aloka"]["Other"] == 3067
    assert machines.class_from_centre.gain > 0.1
    assert any("US_Machine (device) predicts" in warning for warning in found.warnings)
