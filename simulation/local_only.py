"""The local-only arm: each hospital alone, with the federation's own trainer, rounds and step budget.

A site's round is the one it would run in the federation (`client.training_round`); what comes back is fed to the same
site again instead of being averaged, so the two arms differ in nothing but the exchange.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from semc.config import StudyConfig, load_site, parse_study
from semc.metrics import Confusion
from semc.protocol import TEST_CONFUSION


def local_only(study: StudyConfig, site_files: dict[str, Path], folder: Path) -> dict[str, Confusion]:
    """Train every site alone and score it on its own test split.

    Args:
        study: The federated study; each site runs it with itself as the only member.
        site_files: Site name to site file.
        folder: Where the sites' states of this arm go.

    Returns:
        Site name to test confusion of the last round's weights.
    """
    workers = min(len(site_files), 2 * (os.cpu_count() or 1))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {
            name: pool.submit(_train_alone, study.to_yaml(), name, file, folder / name)
            for name, file in site_files.items()
        }
        return {
            name: Confusion.from_list(future.result(), len(study.data.classes))
            for name, future in futures.items()
        }


def _train_alone(study_text: str, name: str, site_file: Path, state: Path) -> list[int]:
    """Run all rounds of one site in this process; returns the flat test confusion."""
    from client.training_round import SiteTrainer
    from semc.models import build_model
    from semc.parameter_exchange import split_parameters

    federated = parse_study(study_text)
    alone = federated.federation.model_copy(update={"sites": (name,), "quorum": None})
    study = federated.model_copy(update={"federation": alone})
    site = load_site(site_file).model_copy(update={"state_directory": state})
    trainer = SiteTrainer(site, study)
    shared = split_parameters(build_model(study, site.weights_directory), study.federation.bn).shared
    for round_number in range(1, study.federation.rounds + 1):
        shared = trainer.run_round(round_number, shared, judge_incoming=False).shared
    metrics = trainer.evaluate(shared, study.federation.rounds)
    confusion = metrics[TEST_CONFUSION]
    assert isinstance(confusion, list)
    return [int(count) for count in confusion]
