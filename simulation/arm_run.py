"""One arm with one seed: train it, then record what every model answers on every site's test images.

Federated arms run the deployed server and client apps (`simulation.run`); the two yardsticks, each site alone and all
images in one place, run the same site trainer without them. Trained models are scored as the sites would use them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from semc.config import StudyConfig, load_site, parse_study
from semc.metrics import Confusion
from semc.reporting.predictions import Predictions
from semc.reporting.result import StudyResult
from simulation.arms import Arm
from simulation.pooled_site import POOLED, pool_sites
from simulation.run import Resources, SimulatedRun, prepare, run_whole
from simulation.site_folder import SITE_FILE

if TYPE_CHECKING:
    from torch import Tensor

    from client.training_round import SiteTrainer

Curve = list[tuple[int, float]]
"""(round, macro-F1) pairs."""
_STATES = "states"


@dataclass(frozen=True)
class ArmRun:
    """What one trained arm leaves behind."""

    predictions: list[Predictions]
    curves: dict[str, Curve]
    """Site to the test macro-F1 of each round's weights; empty for arms without rounds in common."""
    seconds: float
    terms: dict[str, dict[str, Curve]] = field(default_factory=dict)
    """Part of the objective ("alpha", "queue_drift_cosine", ...) to site to its mean in each round's training."""


@dataclass(frozen=True)
class _Job:
    """One model to train or load in another process, and to score; picklable."""

    study_text: str
    arm: str
    seed: int
    site: str
    site_file: Path
    state: Path
    test_files: dict[str, Path]
    test_sites: tuple[str, ...]
    threads: int = 1
    federation: Path | None = None
    """Folder of the run whose last weights the site uses; None: the site trains alone first."""
    shared_model: bool = False
    """The model is everyone's: file it under no site's name."""


def run_arm(
    arm: Arm,
    study: StudyConfig,
    sites: Path,
    folder: Path,
    resources: Resources,
    *,
    cross_site: bool = True,
) -> ArmRun:
    """Train and score an arm.

    Args:
        arm: How to train.
        study: The arm's own study (:meth:`Arm.study`).
        sites: Folder made by `semc-sim sites`.
        folder: New folder for everything the training writes.
        resources: What this run may use of the machine.
        cross_site: Also score each site's model on all other sites' images.

    Raises:
        SemcError: Whatever preparation or the run itself refuses.
    """
    started = time.monotonic()
    files = {name: sites / name / SITE_FILE for name in study.federation.sites}
    curves: dict[str, Curve] = {}
    if arm.kind == "federated":
        predictions, curves = _federated(arm, study, sites, folder, resources, cross_site)
    elif arm.kind == "control":
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            predictions = pool.submit(_control, arm.name, study.to_yaml(), files, folder, cross_site).result()
    elif arm.kind == "local":
        predictions = _local(arm, study, files, folder, resources, cross_site)
    else:
        predictions = _pooled(arm, study, files, folder, resources)
    return ArmRun(predictions, curves, time.monotonic() - started, training_terms(folder))


def _federated(
    arm: Arm,
    study: StudyConfig,
    sites: Path,
    folder: Path,
    resources: Resources,
    cross_site: bool,
) -> tuple[list[Predictions], dict[str, Curve]]:
    run = prepare(study, sites, folder)
    result = run_whole(run, resources)
    names = study.federation.sites
    one_model = study.federation.bn == "average"
    jobs = [
        _Job(
            study_text=study.to_yaml(),
            arm=arm.name,
            seed=study.seed,
            site=name,
            site_file=run.site_file(name),
            state=run.site_file(name).parent / "state",
            test_files={other: run.site_file(other) for other in names},
            test_sites=names if one_model or cross_site else (name,),
            federation=run.folder,
            shared_model=one_model,
        )
        for name in (names[:1] if one_model else names)
    ]
    return _in_processes(jobs, resources), round_curves(result)


def _local(
    arm: Arm,
    study: StudyConfig,
    files: Mapping[str, Path],
    folder: Path,
    resources: Resources,
    cross_site: bool,
) -> list[Predictions]:
    jobs = [
        _Job(
            study_text=study.to_yaml(),
            arm=arm.name,
            seed=study.seed,
            site=name,
            site_file=file,
            state=folder / _STATES / name,
            test_files=dict(files),
            test_sites=tuple(files) if cross_site else (name,),
        )
        for name, file in files.items()
    ]
    return _in_processes(jobs, resources)


def _pooled(
    arm: Arm, study: StudyConfig, files: Mapping[str, Path], folder: Path, resources: Resources
) -> list[Predictions]:
    """Train on all sites' images, as many in all as the sites see together."""
    job = _Job(
        study_text=pooled_study(study).to_yaml(),
        arm=arm.name,
        seed=study.seed,
        site=POOLED,
        site_file=pool_sites(study, files, folder / POOLED),
        state=folder / _STATES / POOLED,
        test_files=dict(files),
        test_sites=tuple(files),
        threads=resources.total_cpus,
        shared_model=True,
    )
    return _in_processes([job], resources)


def _control(
    name: str, study_text: str, files: Mapping[str, Path], folder: Path, cross_site: bool
) -> list[Predictions]:
    """Train a control and score every site's model, in this process."""
    from simulation.bn_control import RULES, train_control
    from simulation.scoring import ModelName, Scorer

    study = parse_study(study_text)
    scorer, records = Scorer(study, files), []
    rule = RULES[name.split("+", maxsplit=1)[0]]
    for site, (trainer, weights) in train_control(study, files, folder / _STATES, rule).items():
        network = trainer.model_in_use(weights, study.federation.rounds)
        asked = tuple(files) if cross_site else (site,)
        records += scorer.score(network, ModelName(name, study.seed, site), asked)
    return records


def pooled_study(study: StudyConfig) -> StudyConfig:
    """Return the study of the pooled site: each round has the steps of all sites together."""
    training = study.training
    if training.local_steps is None:  # an epoch over all images is all sites' epochs
        return study
    steps = training.local_steps * len(study.federation.sites)
    return study.model_copy(update={"training": training.model_copy(update={"local_steps": steps})})


def _in_processes(jobs: list[_Job], resources: Resources) -> list[Predictions]:
    """Run every job in a fresh process, as many at a time as the run's cores and GPU fractions allow."""
    workers = min(len(jobs), resources.processes)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return [record for records in pool.map(_answers, jobs) for record in records]


def _answers(job: _Job) -> list[Predictions]:
    """Obtain one model and score it, in this process."""
    from client.training_round import SiteTrainer
    from simulation.local_only import train_alone
    from simulation.scoring import ModelName, Scorer

    study = parse_study(job.study_text)
    if job.federation is None:
        trainer, shared = train_alone(study, job.site, job.site_file, job.state, threads=job.threads)
    else:
        trainer = SiteTrainer(load_site(job.site_file), study)
        shared = received_weights(SimulatedRun(study, job.federation), trainer)
    network = trainer.model_in_use(shared, study.federation.rounds)
    name = ModelName(job.arm, job.seed, "" if job.shared_model else job.site)
    return Scorer(study, job.test_files).score(network, name, job.test_sites)


def received_weights(run: SimulatedRun, trainer: SiteTrainer) -> dict[str, Tensor]:
    """Return a finished run's last weights as a site would receive them."""
    from semc.wire import pack, unpack
    from server.round_checkpoint import newest_round
    from server.run_folder import RunFolder

    dtype = run.study.federation.wire_dtype
    tensors = newest_round(RunFolder(run.server_folder).checkpoints).model
    return unpack(pack(tensors, dtype), trainer.shared_shapes, dtype)


def training_terms(folder: Path) -> dict[str, dict[str, Curve]]:
    """Return the terms of every site's log of rounds below a folder; a site is named by its folder."""
    from client.round_log import FILE_NAME, read_rounds

    terms: dict[str, dict[str, Curve]] = {}
    for log in sorted(folder.rglob(FILE_NAME)):
        states = (
            log.parent.parent
        )  # <site>/state/<digest>/ of a federation, states/<site>/<digest>/ of the others
        site = states.parent.name if states.name == "state" else states.name
        for entry in read_rounds(log.parent):
            for name, value in entry.terms.items():
                terms.setdefault(name, {}).setdefault(site, []).append((entry.round, value))
    return terms


def round_curves(result: StudyResult) -> dict[str, Curve]:
    """Return site to the test macro-F1 of each round's weights."""
    curves: dict[str, Curve] = {}
    for item in result.rounds:
        for site, counts in item.test.items():
            score = Confusion.from_list(counts, len(result.classes)).macro_f1
            if score is not None:
                curves.setdefault(site, []).append((item.round, score))
    return curves
