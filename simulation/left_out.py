"""One left-out centre with one seed: train the federation of the others, then let it meet the centre."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from semc.config import StudyConfig, load_site, parse_study
from semc.reporting.predictions import Predictions
from semc.seed import derive_seed
from simulation.arm_run import ArmRun, received_weights, round_curves
from simulation.run import Resources, SimulatedRun, prepare, run_whole
from simulation.site_folder import SITE_FILE

if TYPE_CHECKING:
    from torch import nn

    from semc.datasets import ManifestRow, SiteData, SiteImages
    from semc.training import NormStatistics

PASSES: Final = 3
FEWEST_IMAGES: Final = 2
"""Of one image a batch norm has no variance to measure on the smallest maps."""
LABELLED_FRACTION: Final = 0.1
FINE_TUNE_ROUNDS: Final = 3
"""Fine-tuning takes this many rounds' local steps, on the classifiers only, after statistics of all its images."""
ALL_IMAGES: Final = "bn_all"
FINE_TUNED: Final = "fine_tune_10"


def leave_out(
    arm: str,
    study: StudyConfig,
    centre: str,
    images: tuple[int, ...],
    sites: Path,
    folder: Path,
    *,
    resources: Resources,
) -> ArmRun:
    """Train the federation without a centre and score every condition at it.

    Args:
        arm: Name of the arm.
        study: The arm's study without the centre.
        centre: The left-out site.
        images: Numbers of unlabelled images for the statistics, fewer than the centre has; all of them come last.
        sites: Folder made by `semc-sim sites`.
        folder: New folder for what training writes.
        resources: What one virtual site may use.
    """
    started = time.monotonic()
    run = prepare(study, sites, folder)
    result = run_whole(run, resources)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:  # Ray's leftovers stay outside
        records = pool.submit(_meet, arm, study.to_yaml(), folder, centre, sites / centre / SITE_FILE, images)
        return ArmRun(records.result(), round_curves(result), time.monotonic() - started)


def _meet(
    arm: str, study_text: str, folder: Path, centre: str, site_file: Path, counts: tuple[int, ...]
) -> list[Predictions]:
    """Score the federation's model at the centre under every condition."""
    from semc.datasets import SiteImages, adaptation_batches, build_site_data, spread_over_patients
    from semc.training import adapt_statistics, set_statistics
    from simulation.scoring import ModelName, Scorer

    study = parse_study(study_text)
    network, prior = _federation_model(SimulatedRun(study, folder), study)
    site = load_site(site_file)
    data = build_site_data(site.data, study.data, study.training.batch_size)
    scorer = Scorer(study, {centre: site_file})
    images = SiteImages(study.data, site.data, study.model.weights)
    device = next(network.parameters()).device
    records: list[Predictions] = []

    def score(condition: str) -> None:
        name = ModelName(arm, study.seed, condition=condition)
        records.extend(scorer.score(network, name, (centre,), protocol="loco"))

    score("none")
    shares_statistics = study.federation.bn == "average"
    for count in (*sorted(counts), len(data.train)):
        set_statistics(network, prior)
        chosen = spread_over_patients(data.train, count, derive_seed(study.seed, centre, "unlabelled"))
        passes = [adaptation_batches(chosen, images, seed=number) for number in range(PASSES)]
        adapt_statistics(network, passes, device, prior=prior if shares_statistics else None)
        score(f"bn_{count}" if count < len(data.train) else ALL_IMAGES)
    _fine_tune(network, study, data, centre, images)
    score(FINE_TUNED)
    return records


def _federation_model(run: SimulatedRun, study: StudyConfig) -> tuple[nn.Module, dict[str, NormStatistics]]:
    """Return the last global weights with the mean of the training sites' statistics, and those statistics."""
    from client.training_round import SiteTrainer
    from semc.training import set_statistics, statistics_of

    found: list[dict[str, NormStatistics]] = []
    for name in study.federation.sites:
        trainer = SiteTrainer(load_site(run.site_file(name)), study)
        network = trainer.model_in_use(received_weights(run, trainer), study.federation.rounds)
        found.append(dict(statistics_of(network)))
    prior = mean_statistics(found)
    set_statistics(network, prior)
    return network, prior


def mean_statistics(sites: Sequence[Mapping[str, NormStatistics]]) -> dict[str, NormStatistics]:
    """Return the statistics of a mixture of sites, each counted once (law of total variance)."""
    import torch

    from semc.training import NormStatistics

    mixed = {}
    for layer in sites[0]:
        means_SC = torch.stack([site[layer].mean_C for site in sites])
        variances_SC = torch.stack([site[layer].variance_C for site in sites])
        spread_C = means_SC.var(dim=0, unbiased=False)
        mixed[layer] = NormStatistics(means_SC.mean(dim=0), variances_SC.mean(dim=0) + spread_C)
    return mixed


def labelled_tenth(rows: Sequence[ManifestRow], seed: int) -> list[ManifestRow]:
    """Return all images of a tenth of the patients, at least one patient of every class there is.

    Args:
        rows: The centre's training images.
        seed: Decides which patients.
    """
    rng = np.random.default_rng(seed)
    groups = sorted({row.group for row in rows})
    order = [groups[place] for place in rng.permutation(len(groups))]
    wanted = max(1, round(LABELLED_FRACTION * len(order)))
    chosen: list[str] = []
    for label in sorted({row.label for row in rows}):
        holders = {row.group for row in rows if row.label == label}
        if not holders & set(chosen):
            chosen.append(next(group for group in order if group in holders))
    chosen += [group for group in order if group not in chosen][: max(0, wanted - len(chosen))]
    return [row for row in rows if row.group in set(chosen)]


def labelled_rows(rows: Sequence[ManifestRow], seed: int, centre: str) -> list[ManifestRow]:
    """Return the images that a left-out centre is fine-tuned on.

    Args:
        rows: Its training images.
        seed: Of the study.
        centre: Its name.
    """
    return labelled_tenth(rows, _labelled_seed(seed, centre))


def _labelled_seed(seed: int, centre: str) -> int:
    return derive_seed(seed, centre, "labelled")


def _fine_tune(
    network: nn.Module, study: StudyConfig, data: SiteData, centre: str, images: SiteImages
) -> None:
    """Train the classifiers on the labelled tenth; statistics and everything else stay as they are."""
    from semc.datasets import steps_per_epoch, training_batches
    from semc.objectives import build_objective
    from semc.seed import seed_everything
    from semc.training import Trainer, set_statistics, statistics_of

    seed = _labelled_seed(study.seed, centre)
    rows = labelled_rows(data.train, study.seed, centre)
    counts = [sum(row.label == label for row in rows) for label in range(len(study.data.classes))]
    training = study.training
    size = min(training.batch_size, len(rows))
    epochs = training.local_epochs or 0
    steps = FINE_TUNE_ROUNDS * (training.local_steps or epochs * steps_per_epoch(len(rows), size))
    statistics = dict(statistics_of(network))
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith("classifier"))  # SEMC's classifiers, a plain ResNet's one
    seed_everything(seed)
    short = training.model_copy(update={"batch_size": size})
    tuned = study.model_copy(update={"training": short})
    trainer = Trainer(
        tuned, network, build_objective(tuned, counts, len(rows)), next(network.parameters()).device
    )
    batches = training_batches(rows, images, batch_size=size, num_steps=steps, seed=seed)
    trainer.train(batches, global_step=0, total_steps=steps)
    set_statistics(network, statistics)
