"""A site alone: the federation's own trainer, rounds and step budget, without the exchange.

A site's round is the one it would run in the federation (`client.training_round`); what comes back is fed to the same
site again instead of being averaged, so the two arms differ in nothing but the exchange.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from semc.config import StudyConfig, load_site, parse_study
from semc.metrics import Confusion
from semc.protocol import TEST_CONFUSION

if TYPE_CHECKING:
    from torch import Tensor

    from client.training_round import SiteTrainer


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
    server = get_context("forkserver")  # torch is imported once, and every site starts from there
    server.set_forkserver_preload(["client.training_round"])
    with ProcessPoolExecutor(workers, mp_context=server) as pool:
        futures = {
            name: pool.submit(_own_confusion, study.to_yaml(), name, file, folder / name)
            for name, file in site_files.items()
        }
        return {
            name: Confusion.from_list(future.result(), len(study.data.classes))
            for name, future in futures.items()
        }


def train_alone(
    study: StudyConfig, name: str, site_file: Path, state: Path, *, threads: int | None = None
) -> tuple[SiteTrainer, dict[str, Tensor]]:
    """Train one site through all rounds of a study, in this process.

    Args:
        study: The study; its other sites are left out.
        name: The site.
        site_file: Its site file.
        state: Folder of its state in this arm.
        threads: CPU threads instead of the site file's.

    Returns:
        The site's trainer, and the weights after the last round.
    """
    from client.training_round import SiteTrainer
    from semc.parameter_exchange import split_parameters
    from semc.training.pretraining import initial_network

    alone = study.federation.model_copy(update={"sites": (name,), "quorum": None})
    study = study.model_copy(update={"federation": alone})
    site = load_site(site_file).model_copy(update={"state_directory": state})
    if threads is not None:
        site = site.model_copy(update={"threads": threads})
    trainer = SiteTrainer(site, study)
    first = initial_network(study, site.weights_directory, keep=state.parent / "pretraining")
    shared = split_parameters(first, study.federation.bn).shared
    for round_number in range(1, study.federation.rounds + 1):
        shared = trainer.run_round(round_number, shared, judge_incoming=False).shared
    return trainer, shared


def _own_confusion(study_text: str, name: str, site_file: Path, state: Path) -> list[int]:
    """Return the flat test confusion of a site trained alone in this process."""
    study = parse_study(study_text)
    trainer, shared = train_alone(study, name, site_file, state)
    confusion = trainer.evaluate(shared, study.federation.rounds)[TEST_CONFUSION]
    assert isinstance(confusion, list)
    return [int(count) for count in confusion]
