"""What patient-level privacy costs in accuracy: one study, several numbers of patients, several epsilons.

Everything that trains is the deployed mechanism: patients drawn, clipped and noised by the site's own trainer, means as
the coordinator takes them. What is left out is the exchange and the ledger, which change no figure: all sites of one
number of patients train in one process, so that the frozen trunk sees every image once for all epsilons.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from semc.config import StudyConfig, load_site
from semc.datasets import SiteImages
from semc.datasets.patient_pool import PatientPool
from semc.datasets.private_site_data import build_private_site_data
from semc.exit_codes import ExitCode, SemcError
from semc.models import SEMCNet
from semc.objectives import SemcDpObjective
from semc.parameter_exchange import update_shapes
from semc.privacy.accounting import noise_for
from semc.reporting.predictions import Predictions
from semc.training.feature_memory import FeatureMemory
from semc.training.pretraining import initial_network
from semc.training.private_trainer import PrivateTrainer
from simulation.arm_run import ArmRun
from simulation.make_sites import COUNTS_FILE, SitesRequest, make_sites
from simulation.scoring import ModelName, Scorer
from simulation.site_folder import SITE_FILE
from simulation.study_run import phantom_request
from simulation.tasks import Task, data_digest


@dataclass(frozen=True)
class UtilityRequest:
    """What `semc-sim utility` is asked for."""

    study: StudyConfig
    patients: tuple[int, ...]
    """Training patients of each hospital, one experiment each."""
    epsilons: tuple[float, ...]
    """Each with the least noise that the study's rounds allow; infinite = without noise."""
    seeds: tuple[int, ...]
    """Seeds of network and pretraining; noise has none."""
    test_patients: int = 60
    frames_per_patient: int = 4
    class_prior: float | None = None
    """Dirichlet concentration of each hospital's class shares; None = equal shares, small = rare classes."""

    def __post_init__(self) -> None:
        if not self.study.privacy.private:
            raise SemcError(
                ExitCode.USAGE,
                f"Study '{self.study.name}' has no patient-level privacy.",
                "give one with privacy.mode patient_dp, such as phantom_dp",
            )

    @property
    def num_steps(self) -> int:
        """Return the steps of all rounds at one site."""
        return (self.study.training.local_steps or 0) * self.study.federation.rounds

    @property
    def noise(self) -> dict[float, float]:
        """Return the noise multiplier of each epsilon; 0 without noise."""
        privacy = self.study.privacy
        return {
            epsilon: 0.0
            if math.isinf(epsilon)
            else noise_for(epsilon, privacy.delta, privacy.patient_fraction, self.num_steps)
            for epsilon in self.epsilons
        }


def arm_name(epsilon: float) -> str:
    """Return the name under which an epsilon's answers are filed."""
    return "no noise" if math.isinf(epsilon) else f"epsilon {epsilon:g}"


def utility_tasks(request: UtilityRequest, out: Path) -> dict[tuple[int, int], Task]:
    """Make the hospitals and return one task for each (patients, seed).

    Args:
        request: What is asked.
        out: Folder of hospitals and results; hospitals that are there already are used again.
    """
    tasks = {}
    for patients in request.patients:
        sites = out / f"hospitals-{patients}"
        if not (sites / COUNTS_FILE).exists():
            make_sites(_hospitals(request, patients), sites)
        digest = data_digest(sites, request.study.federation.sites)
        for seed in request.seeds:
            study = request.study.model_copy(update={"seed": seed})
            tasks[patients, seed] = Task(
                name=f"{patients} patients, seed {seed}",
                folder=out / "runs" / f"patients-{patients}" / f"seed-{seed}",
                study=study,
                data_digest=digest,
                train=partial(train_all, study, request.noise, sites, patients),
                scored=f"{sorted(request.noise.items())}",
            )
    return tasks


def train_all(
    study: StudyConfig, noise: Mapping[float, float], sites: Path, patients: int, folder: Path
) -> ArmRun:
    """Train one model for each epsilon at hospitals of one size and return its answers at every site.

    Args:
        study: The study; its own noise multiplier is replaced.
        noise: Epsilon to noise multiplier.
        sites: The hospitals.
        patients: Their public number of training patients.
        folder: Where the pretrained trunk is kept.
    """
    started = time.monotonic()
    torch.set_num_threads(1)
    network = initial_network(study, keep=folder / "trunk")
    assert isinstance(network, SEMCNet)
    first = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    features = FeatureMemory(network)
    files = {name: sites / name / SITE_FILE for name in study.federation.sites}
    pools = {name: _pool(study, file) for name, file in files.items()}
    scorer = Scorer(study, files)
    records: list[Predictions] = []
    for epsilon, multiplier in noise.items():
        network.load_state_dict(first)
        # model_copy: a study of mode patient_dp without noise is refused when it is loaded, as it should be
        private = study.privacy.model_copy(update={"noise_multiplier": multiplier})
        _train(study.model_copy(update={"privacy": private}), network, pools, patients, features)
        records += scorer.score(network, ModelName(arm_name(epsilon), study.seed), tuple(files))
    return ArmRun(records, {}, time.monotonic() - started, {})


def _train(
    study: StudyConfig,
    network: SEMCNet,
    pools: Mapping[str, PatientPool],
    patients: int,
    features: FeatureMemory,
) -> None:
    """Run all rounds of a federation, in place."""
    steps = study.training.local_steps
    assert steps is not None
    trainers = {
        name: PrivateTrainer(
            study,
            network,
            SemcDpObjective(study),
            torch.device("cpu"),
            public_patients=patients,
            features=features,
        )
        for name in pools
    }
    rounds = study.federation.rounds
    state = network.state_dict()
    names = tuple(update_shapes(network, study.federation.bn))
    for number in range(rounds):
        sent = {name: state[name].clone() for name in names}
        total = {name: torch.zeros_like(state[name], dtype=torch.float64) for name in names}
        for site, pool in pools.items():
            _put(state, sent)
            trainers[site].train(pool, global_step=number * steps, total_steps=rounds * steps)
            for name in names:
                total[name] += state[name]
        _put(state, {name: value / len(pools) for name, value in total.items()})


@torch.no_grad()
def _put(state: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        state[name].copy_(value)


def _pool(study: StudyConfig, site_file: Path) -> PatientPool:
    site = load_site(site_file).data
    rows = build_private_site_data(site, study.data).train
    images = SiteImages(study.data, site, study.model.weights)
    return PatientPool(rows, images, study.privacy.frames_per_patient)


def _hospitals(request: UtilityRequest, patients: int) -> SitesRequest:
    """Return phantom hospitals with a number of training patients, none of them kept for validation."""
    return phantom_request(request.study).model_copy(
        update={
            "patients_per_site": patients,
            "test_patients_per_site": request.test_patients,
            "frames_per_patient": request.frames_per_patient,
            "class_prior": request.class_prior,
            "validation_fraction": 0.0,
        }
    )


def records_of(runs: Sequence[ArmRun]) -> dict[str, list[Predictions]]:
    """Return the answers of several seeds by arm."""
    found: dict[str, list[Predictions]] = {}
    for run in runs:
        for record in run.predictions:
            found.setdefault(record.arm, []).append(record)
    return found
