"""What a left-out centre is met with: mixed statistics, a tenth of its patients, a federation without it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from semc.config import load_study
from semc.datasets import ManifestRow
from semc.exit_codes import ExitCode, SemcError
from semc.training import NormStatistics
from simulation.compare import Laboratory
from simulation.left_out import LABELLED_FRACTION, labelled_tenth, mean_statistics
from simulation.loco import loco, without

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
