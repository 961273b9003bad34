"""`semc-client adopt`: a hospital that took no part in a study makes its finished model fit its own scanner.

Weights, gamma and beta come from the federation; batch-norm statistics are measured on the site's own unlabelled
images and stay in its state directory. Nothing is sent. The cases:

* `bn: average`: the federation's mean statistics count for 32 images of prior;
* `bn: frozen` (privacy mode patient_dp): the same, with the public statistics that came with the trunk;
* `bn: silo`: statistics never travelled, so there is no prior and fewer than 64 images are refused;
* `bn: fedbn`: refused. Gamma and beta stayed at the sites too; the shared weights under initial ones are a network
  that nobody trained, and mending it takes labels and training, that is a place in the federation;
* `model.norm: group`: refused. There are no statistics to fit, so the model is used as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from torch import nn

from client.adoption import KIND, Adoption, Scores
from client.device import compute_device
from client.handed_over import read_shared_weights
from client.inbound import check_study
from client.local_state import LocalState
from client.refusal import RefusalError
from client.unlabelled import num_passed_over, unlabelled_rows
from semc.checkpoint import STATE_FILE, load_state, save_state
from semc.config import SiteConfig, StudyConfig, load_site, load_study
from semc.datasets import (
    Batch,
    ManifestRow,
    SiteImages,
    adaptation_batches,
    build_site_data,
    evaluation_batches,
    patient_halves,
    spread_over_patients,
)
from semc.exit_codes import ExitCode, SemcError
from semc.models import PlainResNet, SEMCNet, build_model
from semc.parameter_exchange import merge_shared, shared_shapes
from semc.seed import derive_seed, seed_everything
from semc.training import (
    adapt_statistics,
    evaluate,
    predicted_counts,
    statistics_of,
)
from semc.training.adaptation import MINIMUM_WITHOUT_PRIOR

PASSES: Final = 3
MOST_IMAGES: Final = 512
"""Beyond it statistics gain less than the scanner's own day to day changes."""
_SMALLEST_BATCH: Final = 2


def adopt(
    site_file: Path,
    study_name: str,
    weights: Path,
    *,
    images: Path | None = None,
    minimum: int = MINIMUM_WITHOUT_PRIOR,
    out: Path | None = None,
) -> Adoption:
    """Adapt a federation's model to this site and save it.

    Args:
        site_file: The hospital's YAML.
        study_name: Study YAML of the run (or a packaged study's name).
        weights: A checkpoint of the run; see :func:`client.handed_over.read_shared_weights`.
        images: Folder of unlabelled images; None: the site's training images, and its test images, which no
            statistics come from, score the model before and after.
        minimum: Fewest images where the federation has no statistics; never below 64.
        out: Folder to save to; None: in the site's state directory.

    Returns:
        What was found and where the model lies.

    Raises:
        SemcError: STUDY_MISMATCH (foreign weights, `fedbn`, no batch norm, settings the site did not approve),
            IMAGES_TOO_FEW, CHECKPOINT_INVALID, USAGE (the output folder holds something else), DISK, ALREADY_RUNNING,
            DEVICE, and whatever the images are refused for.
    """
    site, study = load_site(site_file), load_study(study_name)
    _check_allowed(study, site)
    state = LocalState(site.state_directory, site.site, study.digest(), study.federation.checkpoints_kept)
    folder = state.adopted if out is None else out
    _check_free(folder)
    torch.set_num_threads(site.threads)
    seed_everything(derive_seed(study.seed, site.site, "adopt"))
    device = compute_device(site.device)
    network = _network(study).to(device)
    shared = read_shared_weights(weights, study, shared_shapes(network, study.federation.bn))
    merge_shared(network, shared.tensors, study.federation.bn)
    least = max(minimum, MINIMUM_WITHOUT_PRIOR) if study.federation.bn == "silo" else _SMALLEST_BATCH
    chosen, test = _rows(site, study, images, least)
    found = _adapted(network, site, study, chosen, test, shared.round_number, device)
    if images is not None:
        found = replace(found, num_passed_over=num_passed_over(images))
    with state.lock() if out is None else nullcontext():
        save_state(folder, network.state_dict(), found.metadata(study.digest(), study.model_digest()))
    return found.saved_in(folder)


def load_adopted(folder: Path, study: StudyConfig) -> nn.Module:
    """Return the network :func:`adopt` saved, in evaluation mode on the CPU.

    Raises:
        SemcError: CHECKPOINT_INVALID, it is damaged or something else; STUDY_MISMATCH, it is of another study.
    """
    tensors, metadata = load_state(folder)
    if metadata.get("kind") != KIND:
        raise SemcError(
            ExitCode.CHECKPOINT_INVALID, "This is no adopted model.", "give the folder `adopt` wrote"
        )
    network = _network(study)
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if metadata.get("study") != study.digest() or expected != {name: t.shape for name, t in tensors.items()}:
        raise SemcError(
            ExitCode.STUDY_MISMATCH,
            "The adopted model is of another study.",
            "give the study it was adopted with",
        )
    network.load_state_dict(tensors)
    return network.eval()


def _adapted(
    network: nn.Module,
    site: SiteConfig,
    study: StudyConfig,
    chosen: Sequence[ManifestRow],
    test: Sequence[ManifestRow],
    round_number: int,
    device: torch.device,
) -> Adoption:
    """Measure the site's statistics into the network; returns what was found."""
    images = SiteImages(study.data, site.data, study.model.weights)
    num_classes, prior_travelled = len(study.data.classes), study.federation.bn in ("average", "frozen")

    def answers() -> tuple[tuple[int, ...], Scores | None]:
        scores = None
        if test:
            found = evaluate(network, evaluation_batches(test, images), num_classes, device)
            scores = Scores.of(found.confusion)
        return predicted_counts(network, evaluation_batches(chosen, images), num_classes, device), scores

    def mixed(rows: Sequence[ManifestRow], number: int) -> Iterator[Batch]:
        return adaptation_batches(rows, images, seed=derive_seed(study.seed, site.site, "adopt", number))

    predicted_before, test_before = answers()
    one, other = patient_halves(chosen)
    halves = None
    if not prior_travelled and min(len(one), len(other)) >= _SMALLEST_BATCH:
        halves = (mixed(one, 0), mixed(other, 0))
    report = adapt_statistics(
        network,
        [mixed(chosen, number) for number in range(PASSES)],
        device,
        prior=statistics_of(network) if prior_travelled else None,
        halves=halves,
    )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in network.state_dict().values()):
        raise SemcError(
            ExitCode.CHECKPOINT_INVALID,
            "With these weights the network's activations are not finite.",
            "ask the coordinator for an earlier round's checkpoint",
        )
    predicted_after, test_after = answers()
    return Adoption(
        site=site.site,
        study=study.name,
        classes=study.data.classes,
        round_number=round_number,
        num_patients=len({row.group for row in chosen}),
        report=report,
        predicted_before=predicted_before,
        predicted_after=predicted_after,
        test_before=test_before,
        test_after=test_after,
    )


def _rows(
    site: SiteConfig, study: StudyConfig, folder: Path | None, minimum: int
) -> tuple[list[ManifestRow], tuple[ManifestRow, ...]]:
    """Return the images to adapt to, spread over patients, and the labelled test images (none of a bare folder)."""
    test: tuple[ManifestRow, ...] = ()
    if folder is None:
        data = build_site_data(site.data, study.data, _SMALLEST_BATCH)
        rows, test = list(data.train), data.test
    else:
        rows = unlabelled_rows(folder, study.data, site)
    _check_enough(len(rows), minimum)
    return spread_over_patients(rows, MOST_IMAGES, derive_seed(study.seed, site.site, "adopt")), test


def _network(study: StudyConfig) -> SEMCNet | PlainResNet:
    """Build the study's network without its pretrained file, which the federation's weights replace altogether."""
    bare = study.model.model_copy(update={"weights": "none", "weights_sha256": None, "expert_init": "random"})
    return build_model(study.model_copy(update={"model": bare}))


def _check_allowed(study: StudyConfig, site: SiteConfig) -> None:
    try:
        check_study(study, study.digest(), site, member=False)
    except RefusalError as refusal:
        raise refusal.problem from refusal
    if study.federation.bn == "fedbn":
        raise SemcError(
            ExitCode.STUDY_MISMATCH,
            "Under federation.bn fedbn every site keeps its own gamma and beta: a new site has none.",
            "take part in a study to train them, or ask for a model of a study with bn silo, average or frozen",
        )
    if study.model.norm == "group":
        raise SemcError(
            ExitCode.STUDY_MISMATCH,
            "The network has no batch norm (model.norm group), so there are no statistics to adapt.",
            "use the model as `semc-server export` wrote it",
        )


def _check_enough(num_images: int, least: int) -> None:
    if num_images < least:
        reason = (
            f"the federation hands out no batch-norm statistics, and measuring them takes at least {least}"
            if least > _SMALLEST_BATCH
            else f"statistics take at least {least}"
        )
        raise SemcError(
            ExitCode.IMAGES_TOO_FEW,
            f"There are {num_images} images to adapt to; {reason}.",
            "add unlabelled images of several patients (DICOM exported as PNG or JPEG), or name a larger folder with "
            "--images",
        )


def _check_free(folder: Path) -> None:
    """Refuse a folder in which saving would replace something that is not an adopted model."""
    try:
        content = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        mine = content["metadata"]["kind"] == KIND
    except FileNotFoundError:
        mine = not any(folder.glob("*.safetensors"))
    except (OSError, ValueError, KeyError, TypeError):
        mine = False
    if not mine:
        raise SemcError(
            ExitCode.USAGE,
            "The output folder holds something else than an adopted model.",
            "name another --out",
        )
