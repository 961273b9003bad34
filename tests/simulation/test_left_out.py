"""What a left-out centre is met with: mixed statistics, a tenth of its patients, a federation without it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from torch import Tensor

from semc.config import StudyConfig, load_site, load_study, parse_study
from semc.datasets import ManifestRow, SiteImages, build_site_data
from semc.exit_codes import ExitCode, SemcError
from semc.models import build_model
from semc.training import NormStatistics, statistics_of
from simulation.compare import Laboratory
from simulation.left_out import LABELLED_FRACTION, _fine_tune, _meet, labelled_tenth, mean_statistics
from simulation.loco import _common_numbers, loco, without
from simulation.make_sites import read_site_counts

STUDY = load_study("phantom_smoke")


def test_mean_statistics_are_those_of_all_sites_values_together() -> None:
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(500, 4, generator=generator) * (k + 1) + 3 * k for k in range(3)]
    sites = [{"bn": NormStatistics(v.mean(0), v.var(0, unbiased=False))} for v in values]
    mixed = mean_statistics(sites)["bn"]
    together = torch.cat(values)
    torch.testing.assert_close(mixed.mean_C, together.mean(0))
    torch.testing.assert_close(mixed.variance_C, together.var(0, unbiased=False))
    # control: the mean of the variances alone misses that the sites lie apart
    plain = torch.stack([site["bn"].variance_C for site in sites]).mean(0)
    assert (plain < 0.9 * together.var(0, unbiased=False)).all()


def _rows(patients: int, frames: int, classes: int) -> list[ManifestRow]:
    return [
        ManifestRow(
            patient * frames + frame,
            Path("x.png"),
            patient % classes,
            f"p{patient:03d}",
            "train",
            "",
            "",
            "",
            frame,
        )
        for patient in range(patients)
        for frame in range(frames)
    ]


@pytest.mark.parametrize("patients", [3, 10, 45, 100])
def test_a_tenth_is_whole_patients_of_every_class(patients: int) -> None:
    rows = _rows(patients, 4, 3)
    chosen = labelled_tenth(rows, seed=1)
    groups = {row.group for row in chosen}
    assert {row.label for row in chosen} == {0, 1, 2}
    assert len(groups) == max(3, round(LABELLED_FRACTION * patients))
    assert len(chosen) == 4 * len(groups)
    assert chosen == labelled_tenth(rows, seed=1)
    if patients > 40:
        assert chosen != labelled_tenth(rows, seed=2)


def test_the_left_out_centre_is_no_member() -> None:
    study = without(STUDY, "south")
    assert study.federation.sites == ("north", "west")
    assert study.federation.effective_quorum == 2
    assert study.digest() != STUDY.digest()


@pytest.mark.parametrize(
    ("sites", "arm", "centres"),
    [
        (("north", "south", "west"), "local", ()),
        (("north", "south", "west"), "fedavg", ("east",)),
        (("north", "south"), "fedavg", ()),
        (("north", "south", "west"), "fedbn", ()),
    ],
)
def test_what_cannot_be_left_out_is_refused_before_anything_runs(
    sites: tuple[str, ...], arm: str, centres: tuple[str, ...], tmp_path: Path
) -> None:
    study = load_study("phantom_smoke", {"federation.sites": list(sites)})
    with pytest.raises(SemcError) as caught:
        loco(Laboratory(study, tmp_path, tmp_path / "out", [0]), arm, centres=centres)
    assert caught.value.code is ExitCode.USAGE
    assert not (tmp_path / "out").exists()


def test_statistics_of_one_image_are_refused(tmp_path: Path) -> None:
    laboratory = Laboratory(STUDY, tmp_path, tmp_path / "out", [0])
    with pytest.raises(SemcError, match="single image") as caught:
        loco(laboratory, "fedavg", images=(16, 1))
    assert caught.value.code is ExitCode.USAGE


@pytest.mark.parametrize("name", ["semc", "classification"])
def test_fine_tuning_changes_the_classifiers_and_nothing_else(
    name: str, hospitals: Path, study: StudyConfig
) -> None:
    study = parse_study(study.to_yaml(), {"objective.name": name})
    site = load_site(hospitals / "north" / "site.yaml")
    data = build_site_data(site.data, study.data, study.training.batch_size)
    network = build_model(study)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    _fine_tune(network, study, data, "north", SiteImages(study.data, site.data))
    changed = {
        key
        for key, tensor in network.state_dict().items()
        if not torch.equal(tensor, before[key]) and not key.endswith("num_batches_tracked")
    }
    assert changed
    assert all(key.startswith("classifier") for key in changed)


def _answers_with(
    hospitals: Path, copy: Path, split: str, study: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Tensor]:
    """Return condition to probabilities at north after the labels of one split were turned by one ("": of none)."""
    shutil.copytree(hospitals / "north", copy / "north")
    manifest = copy / "north" / "manifest.csv"
    table = pd.read_csv(manifest, dtype=str)
    names = list(study.data.classes)
    turned = table["label"].map({name: names[(at + 1) % len(names)] for at, name in enumerate(names)})
    table["label"] = turned.where(table["split"] == split, table["label"])
    table.to_csv(manifest, index=False)
    torch.manual_seed(0)
    network = build_model(study)
    prior = dict(statistics_of(network))
    monkeypatch.setattr("simulation.left_out._federation_model", lambda *_: (network, prior))
    records = _meet("fedavg", study.to_yaml(), copy, "north", copy / "north" / "site.yaml", (8,))
    return {record.condition: torch.tensor(record.probabilities_BK) for record in records}


def test_a_left_out_centre_is_met_without_its_test_labels(
    hospitals: Path, study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = parse_study(study.to_yaml(), {"federation.bn": "average"})
    runs = {
        split: _answers_with(hospitals, tmp_path / f"turned-{split}", split, study, monkeypatch)
        for split in ("", "test", "train")
    }
    conditions = list(runs[""])
    assert conditions == ["none", "bn_8", "bn_all", "fine_tune_10"]
    for condition in conditions:
        torch.testing.assert_close(runs["test"][condition], runs[""][condition], rtol=0, atol=0)
    for condition in conditions[:3]:  # statistics take no label
        torch.testing.assert_close(runs["train"][condition], runs[""][condition], rtol=0, atol=0)
    # control: what does take training labels, and what takes images, moves
    assert not torch.equal(runs["train"]["fine_tune_10"], runs[""]["fine_tune_10"])
    assert not torch.equal(runs[""]["none"], runs[""]["bn_8"])


def test_numbers_that_some_centre_cannot_give_are_named_and_left_out(
    hospitals: Path, study: StudyConfig, tmp_path: Path
) -> None:
    laboratory = Laboratory(study, hospitals, tmp_path, [0])
    counts = read_site_counts(hospitals)
    names = study.federation.sites
    fewest = min(counts[name].num_train_images for name in names)
    numbers, note = _common_numbers(laboratory, names, (fewest, 2, 9999))
    assert numbers == (2,)
    assert f"{fewest} or 9999 images" in note
    assert _common_numbers(laboratory, names, (2,)) == ((2,), "")


def test_a_centre_without_test_images_is_refused(hospitals: Path, study: StudyConfig, tmp_path: Path) -> None:
    sites = tmp_path / "hospitals"
    shutil.copytree(hospitals, sites)
    manifest = sites / "south" / "manifest.csv"
    table = pd.read_csv(manifest, dtype=str)
    table["split"] = table["split"].replace("test", "train")
    table.to_csv(manifest, index=False)
    content = yaml.safe_load((sites / "south" / "site.yaml").read_text())
    content["data"]["split"]["test_fraction"] = 0.0
    (sites / "south" / "site.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SemcError, match="'south' has no test image") as caught:
        loco(Laboratory(study, sites, tmp_path / "out", [0]), "silo")
    assert caught.value.code is ExitCode.USAGE
