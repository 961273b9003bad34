"""What leave-one-centre-out writes beside its figures; training itself is stood in for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from semc.config import StudyConfig, load_site
from semc.datasets import build_site_data
from semc.reporting.predictions import Predictions
from simulation.arm_run import ArmRun
from simulation.compare import MARKDOWN, REPORT, Laboratory
from simulation.left_out import labelled_rows
from simulation.loco import loco
from simulation.loco_remarks import CURVES, remarks_on_left_out
from simulation.tasks import Task

SEEDS = (0, 1, 2)


def _answers(arm: str, seed: int, site: str, k: int, condition: str = "") -> Predictions:
    labels_B = np.arange(40) % k
    return Predictions(
        arm,
        seed,
        "",
        site,
        tuple(range(40)),
        tuple(labels_B.tolist()),
        np.eye(k, dtype=np.float32)[labels_B],
        "loco" if condition else "per_site",
        condition,
    )


def _run(task: Task) -> ArmRun:
    """Return answers of a yardstick at every site, or of a federation at the centre that is not in it."""
    sites, k, seed = task.study.federation.sites, len(task.study.data.classes), task.study.seed
    if " without " not in task.name:
        arm = task.name.split(",")[0]
        return ArmRun([_answers(arm, seed, site, k) for site in sites], {}, 1.0)
    arm, centre = task.name.split(",")[0].split(" without ")
    conditions = ("none", "bn_4", "bn_all", "fine_tune_10")
    curves = {site: [(1, 0.5)] for site in sites}
    return ArmRun([_answers(arm, seed, centre, k, name) for name in conditions], curves, 1.0)


@pytest.fixture
def written(
    hospitals: Path, study: StudyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[str, str]]:
    """Return arm to Markdown and page."""

    def run_tasks(tasks: Sequence[Task], console: Console, **options: object) -> list[ArmRun]:
        return [_run(task) for task in tasks]

    monkeypatch.setattr("simulation.compare.run_tasks", run_tasks)
    texts = {}
    for arm in ("silo", "fedavg"):
        laboratory = Laboratory(study, hospitals, tmp_path, SEEDS, console=Console(quiet=True))
        report = loco(laboratory, arm, images=(4,))
        assert report.name == REPORT
        texts[arm] = (
            report.with_name(MARKDOWN).read_text(encoding="utf-8"),
            report.read_text(encoding="utf-8"),
        )
    return texts


def test_statistics_that_never_travel_are_told_under_the_table(written: dict[str, tuple[str, str]]) -> None:
    words = "so the condition exists in a simulation only."
    assert all(words in text for text in written["silo"])
    assert not any(words in text for text in written["fedavg"])


def test_curves_of_different_federations_are_labelled(written: dict[str, tuple[str, str]]) -> None:
    assert all(CURVES in page for _, page in written.values())


def test_the_table_tells_how_much_was_labelled(
    written: dict[str, tuple[str, str]], hospitals: Path, study: StudyConfig
) -> None:
    for name in study.federation.sites:
        site = load_site(hospitals / name / "site.yaml")
        data = build_site_data(site.data, study.data, study.training.batch_size)
        chosen = [labelled_rows(data.train, seed, name) for seed in SEEDS]
        images, patients = {len(rows) for rows in chosen}, {len({r.group for r in rows}) for rows in chosen}

        def span(numbers: set[int]) -> str:
            return f"{min(numbers)} to {max(numbers)}" if len(numbers) > 1 else str(*numbers)

        share = f"{name} {span(images)} images of {span(patients)} patients"
        assert all(share in text for texts in written.values() for text in texts), share
        assert 0 < max(images) < len(data.train)


def test_where_patients_are_not_known_images_alone_are_told(
    hospitals: Path, study: StudyConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ungrouped(*arguments: object) -> object:
        return replace(build_site_data(*arguments), ungrouped=True)  # type: ignore[arg-type]

    monkeypatch.setattr("simulation.loco_remarks.build_site_data", ungrouped)
    remark = remarks_on_left_out(study, hospitals, ("north",), (0,)).left_out[-1]
    assert remark.endswith(" images.")
    assert "images of" not in remark.split("class:")[1]
