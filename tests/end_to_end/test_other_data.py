"""Other data end to end, two rounds each: an LP2025-layout folder, and real lung frames by source (plumbing only)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from semc.config import StudyConfig, parse_study
from semc.datasets.phantom import PhantomConfig, write_phantom
from semc.reporting.result import StudyResult
from simulation.make_sites import SitesRequest, make_sites
from simulation.study_run import run_study

REAL = Path(__file__).parents[3] / "shared" / "data"


def study_of(folder: Path, **overrides: Any) -> StudyConfig:
    counts = make_sites(SitesRequest(**overrides), folder)
    classes = sorted({name for count in counts.values() for name in count.class_counts})
    return parse_study(
        """
name: plumbing
data: {classes: [a, b], image_size: 32}
model: {backbone: tiny, samc_expansion: 1, embedding_dim: 16}
objective: {queue_size: 64}
training: {batch_size: 4, local_steps: 2, learning_rate: 0.02}
federation: {sites: [a], rounds: 2, deadline_seconds: 120}
""",
        {"data.classes": classes, "federation.sites": sorted(counts)},
    )


def assert_whole(result: StudyResult, num_sites: int) -> None:
    assert result.outcome == "complete"
    assert len(result.rounds) == 2
    assert len(result.sites) == num_sites
    assert all(site.test_confusion is not None and sum(site.test_confusion) > 0 for site in result.sites)


@pytest.mark.slow
def test_an_lp2025_folder_runs_two_rounds(tmp_path: Path) -> None:
    config = PhantomConfig(
        seed=2,
        classes=("head", "abdomen", "femur"),
        centre_names=("only",),
        patients_per_centre=30,
        test_patients_per_centre=12,
        frames_per_patient=2,
        image_size=32,
    )
    write_phantom(config, tmp_path / "LP", layout="lp2025")
    study = study_of(
        tmp_path / "sites",
        source=str(tmp_path / "LP"),
        partition="dirichlet",
        num_sites=2,
        alpha=5.0,
        allow_ungrouped=True,
    )
    assert_whole(run_study(study, tmp_path / "run", tmp_path / "sites"), 2)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not (REAL / "pocus_cc_by").is_dir(), reason="the real images are not here")
def test_real_lung_frames_by_source_run_two_rounds(tmp_path: Path) -> None:
    study = study_of(tmp_path / "sites", source=str(REAL / "pocus_cc_by"), partition="auto", num_sites=2)
    assert_whole(run_study(study, tmp_path / "run", tmp_path / "sites"), 2)
