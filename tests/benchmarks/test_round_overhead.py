"""Seconds per round of a federation that computes next to nothing: ours beside stock Flower, in one run.

Ours trains a network of a million parameters for one step at each of two sites and evaluates it, with TLS,
node authentication, checked replies, receipts and a checkpoint a round. Stock Flower echoes 10 kB, without TLS.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from semc.config import parse_study
from semc.reporting.result import StudyResult
from simulation.make_sites import SitesRequest, make_sites
from simulation.rehearsal import Rehearsal, read_result
from simulation.run import SITE_FILE
from tests.benchmarks.stock_flower import seconds_per_round
from tests.end_to_end.conftest import STUDY

ROUNDS = 10


@pytest.mark.bench
@pytest.mark.timeout(900)
def test_seconds_per_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = parse_study(
        STUDY,
        {
            "federation.rounds": ROUNDS,
            "federation.sites": ["north", "south"],
            "federation.bn_statistics": "running",  # else most of a round is the sites measuring them anew
            "training.local_steps": 1,
        },
    )
    names = study.federation.sites
    request = SitesRequest(
        partition="by_centre",
        num_sites=len(names),
        site_names=names,
        classes=study.data.classes,
        patients_per_site=6,
        test_patients_per_site=2,
        frames_per_patient=2,
        image_size=32,
    )
    counts = make_sites(request, tmp_path / "hospitals")
    study_file = tmp_path / "study.yaml"
    study_file.write_text(study.to_yaml(), encoding="utf-8")
    files = {name: tmp_path / "hospitals" / name / SITE_FILE for name in names}
    with Rehearsal(tmp_path, files, {name: counts[name].num_train_images for name in names}) as rehearsal:
        assert rehearsal.run(study_file, quiet=True) == 0
        result = StudyResult.model_validate(read_result(rehearsal.home))
    ours = [round_result.seconds for round_result in result.rounds]
    stock = seconds_per_round(tmp_path / "stock", ROUNDS, len(names))
    assert len(ours) == len(stock) == ROUNDS
    with capsys.disabled():
        print(f"\nours   median {statistics.median(ours):.2f} s, {min(ours):.2f} to {max(ours):.2f}")
        print(f"stock  median {statistics.median(stock):.2f} s, {min(stock):.2f} to {max(stock):.2f}")
        print(f"ratio  {statistics.median(stock) / statistics.median(ours):.1f}")
