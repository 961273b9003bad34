"""Whether a hospital answers tells nothing of a patient: one more whose rows or images cannot serve changes no reply.

The coordinator chooses classes and image mode and sees answer or refusal. From a reading that refuses it would
learn, one message a class, whether anybody at the hospital has that class.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from client.private_round import PrivateSiteTrainer
from client.refusal import RefusalError
from semc.config import SiteConfig, parse_study
from semc.datasets import SiteImages, build_site_data, check_images
from semc.datasets.patient_pool import PatientPool
from semc.datasets.private_site_data import build_private_site_data
from semc.exit_codes import SemcError
from semc.models import build_model
from semc.parameter_exchange import split_parameters
from tests.attacks.audit_row import AuditRow, Control
from tests.attacks.private_site import network_of, trained_weights, trainer_of
from tests.client.private_site import PRIVATE_TEXT, private_site
from tests.semc.datasets.tiny_site import write_image

Audit = Callable[[AuditRow], None]

STUDY = parse_study(PRIVATE_TEXT)
SHARED = split_parameters(build_model(STUDY), STUDY.federation.bn).shared
REFUSED = ("refused",)
CLIP = 0.1
ONE_STEP = parse_study(
    PRIVATE_TEXT,
    {
        "training.local_steps": 1,
        "training.learning_rate": 1.0,
        "training.momentum": 0.0,
        "training.weight_decay": 0.0,
        "training.schedule": "constant",
        "privacy.max_grad_norm": CLIP,
    },
)

FAULTS = {
    "a label the study does not have": {"label": "spleen"},
    "no image": {"file": "missing.png"},
    "no picture in the file": {"file": "text.png"},
    "half a picture": {"file": "half.png"},
    "another pixel mode": {"file": "deep.png"},
    "no patient key": {"group": ""},
    "a split of its own": {"split": "dev"},
}
"""Cells of the additional patient's row that differ from a sound one."""


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_patient_who_cannot_serve_changes_no_answer(split: str, tmp_path: Path, audit: Audit) -> None:
    sites = {name: _with_one_more(tmp_path / name, split, cells) for name, cells in FAULTS.items()}
    sites["a file listed twice"] = _with_one_more(tmp_path / "twice", split, {}, copies=True)
    sites["a line that is no row"] = _with_line(tmp_path / "line", 'new.png,"head,new')
    plain = _answered(private_site(tmp_path / "plain"))
    assert REFUSED not in plain
    audit(
        AuditRow(
            "neighbouring hospitals: refusals or other kinds of answer that one patient more brings about",
            f"{len(sites)} kinds of rows that cannot serve, {split}",
            float(sum(_answered(site) != plain for site in sites.values())),
            0.0,
            (
                Control(
                    "the reading of mode none",
                    float(sum(_refused_by_mode_none(site) for site in sites.values())),
                    float(len(sites)),
                ),
            ),
        )
    )


def test_such_a_patient_moves_the_sum_by_nothing_and_a_shared_file_by_one_clip_norm(tmp_path: Path) -> None:
    alone = _sum(private_site(tmp_path / "alone"))
    for name, cells in FAULTS.items():
        assert torch.equal(_sum(_with_one_more(tmp_path / name, "train", cells)), alone)
    shared = _sum(_with_one_more(tmp_path / "shared", "train", {}, copies=True))
    sound = _sum(_with_one_more(tmp_path / "sound", "train", {}))
    for whole in (shared, sound):
        assert (whole - alone).norm().item() == pytest.approx(1.0, abs=1e-3)
    assert alone.norm() > 1.0  # the control: a reading that refused would take all others with it


def test_a_hospital_of_nobody_and_of_one_class_answers(tmp_path: Path) -> None:
    trained = _answered(private_site(tmp_path / "plain"))[0]
    for name in ("nobody", "one class"):
        site = private_site(tmp_path / name)
        rows = _rows(site)
        _write(site, [row for row in rows if name == "one class" and row["label"] == "head"], tuple(rows[0]))
        assert _answered(site) == (trained, ())
        assert _refused_by_mode_none(site)


def _with_one_more(folder: Path, split: str, cells: dict[str, str], *, copies: bool = False) -> SiteConfig:
    """Write a hospital with one more patient; `copies`: the patient's row names another patient's file."""
    site = private_site(folder)
    root, rows = site.data.root, _rows(site)
    write_image(root / "new.png", 1)
    write_image(root / "deep.png", 2, mode="I;16")
    (root / "text.png").write_text("no picture", encoding="utf-8")
    (root / "half.png").write_bytes((root / "new.png").read_bytes()[:200])
    file = rows[0]["file"] if copies else "new.png"
    new = {**dict.fromkeys(rows[0], ""), "file": file, "label": "head", "group": "new", "split": split}
    _write(site, [*rows, {**new, **cells}], tuple(new))
    return site


def _with_line(folder: Path, line: str) -> SiteConfig:
    site = private_site(folder)
    with (site.data.root / "manifest.csv").open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    return site


def _rows(site: SiteConfig) -> list[dict[str, str]]:
    with (site.data.root / "manifest.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _write(site: SiteConfig, rows: list[dict[str, str]], names: tuple[str, ...]) -> None:
    with (site.data.root / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)


def _answered(site: SiteConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names that a round and the closing evaluation answer with."""
    trainer = PrivateSiteTrainer(site, STUDY)
    answers = []
    for ask in (
        lambda: trainer.run_round(1, SHARED).shared,
        lambda: trainer.evaluate(SHARED, STUDY.federation.rounds + 1),
    ):
        try:
            answers.append(tuple(sorted(ask())))
        except (SemcError, RefusalError):
            answers.append(REFUSED)
    return answers[0], answers[1]


def _refused_by_mode_none(site: SiteConfig) -> bool:
    try:
        built = build_site_data(site.data, STUDY.data, 1)
    except SemcError:
        return True
    return bool(check_images(built.train + built.validation + built.test, STUDY.data, site.data).errors)


def _sum(site: SiteConfig) -> torch.Tensor:
    """Return the clipped sum of a step in which everybody is drawn, in units of C."""
    off = ONE_STEP.privacy.model_copy(update={"noise_multiplier": 0.0, "patient_fraction": 1.0})
    study = ONE_STEP.model_copy(update={"privacy": off})
    network = network_of(study)
    before = trained_weights(network).double()
    images = SiteImages(study.data, site.data, study.model.weights)
    rows = build_private_site_data(site.data, study.data).train
    pool = PatientPool(rows, images, study.privacy.frames_per_patient)
    trainer_of(study, network, public_patients=1).train(pool, global_step=0, total_steps=1)
    return (before - trained_weights(network).double()) / CLIP
