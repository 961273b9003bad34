"""Initial weights trained centrally on public or phantom images, without privacy, before the first round.

A trunk trained on nobody's patients may be used freely: private training then spends its budget on the heads alone.
The classes of the public images need not be the study's: classifiers are not taken over.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
import yaml
from torch import Tensor, nn

from semc import __version__
from semc.checkpoint import STATE_FILE, load_state, save_state
from semc.config import PretrainingConfig, SiteDataConfig, StudyConfig, parse_study
from semc.config.pretraining import PHANTOM
from semc.datasets import SiteData, SiteImages, build_site_data, training_batches
from semc.datasets.manifest import read_table
from semc.datasets.phantom import PLANES, PhantomConfig, write_phantom
from semc.exit_codes import ExitCode, SemcError
from semc.models import build_model
from semc.objectives import build_objective
from semc.seed import derive_seed, seed_everything
from semc.training.folder_digest import folder_digest
from semc.training.trainer import Trainer

PUBLIC_DATA: Final = "SEMC_PUBLIC_DATA"
"""Environment variable of the coordinator: folder whose sub-folders hold public images."""

_CLASSIFIERS: Final = ("classifiers.", "classifier.")

Report = Callable[[int, int], None]
"""Told (steps done, steps in all)."""


def initial_network(
    study: StudyConfig,
    weights_directory: Path | None = None,
    *,
    keep: Path | None = None,
    report: Report | None = None,
) -> nn.Module:
    """Return the network that a study's first round starts from.

    Args:
        study: The study.
        weights_directory: As in :func:`semc.models.build_model`.
        keep: Folder in which the pretrained trunk is kept, and found again.
        report: Told the steps of pretraining.

    Raises:
        SemcError: As :func:`semc.models.build_model` and :func:`pretrained_trunk`.
    """
    network = build_model(study, weights_directory)
    if study.pretraining is not None:
        # What the trunk does not have (classifiers, prototypes, adapters) stays.
        network.load_state_dict(pretrained_trunk(study, keep=keep, report=report), strict=False)
    return network


def pretrained_trunk(
    study: StudyConfig, *, keep: Path | None = None, report: Report | None = None
) -> dict[str, Tensor]:
    """Train a study's network on public images; the same study gives the same weights on one kind of machine.

    Args:
        study: A study with a `pretraining` section.
        keep: Folder of an earlier result, which is used if it belongs to these settings, these public images and
            this version of the software, or replaced.
        report: Told the steps.

    Returns:
        The network's tensors by state key, on the CPU, without the classifiers.

    Raises:
        SemcError: DATA_NOT_FOUND or another code of the data; RUN_FAILED where training diverged; DISK.
    """
    assert study.pretraining is not None
    identity = None if keep is None else _identity(study)
    if keep is not None and (keep / STATE_FILE).is_file():
        state, metadata = load_state(keep)
        if metadata.get("pretraining") == identity:
            return state
    with TemporaryDirectory(prefix="semc-pretraining-") as folder:
        source = _source(study, study.pretraining, Path(folder))
        state = _train(study, source, report)
    if keep is not None:
        save_state(keep, state, {"pretraining": identity})
    return state


@dataclass(frozen=True)
class _Source:
    classes: tuple[str, ...]
    site: SiteDataConfig


def _source(study: StudyConfig, pretraining: PretrainingConfig, folder: Path) -> _Source:
    """Draw the phantom, or find the public images."""
    split = {"validation_fraction": 0.0, "test_fraction": 0.0}
    if pretraining.source == PHANTOM:
        config = PhantomConfig(
            seed=derive_seed(study.seed, "pretraining phantom") % 2**31,
            centre_names=tuple(f"public_{number}" for number in range(1, pretraining.centres + 1)),
            patients_per_centre=pretraining.patients,
            test_patients_per_centre=0,
            frames_per_patient=pretraining.frames_per_patient,
            image_size=study.data.image_size,
            severity=pretraining.severity,
            class_prior=None,
        )
        write_phantom(config, folder, workers=os.cpu_count() or 1)
        return _Source(tuple(PLANES), SiteDataConfig.model_validate({"root": folder, "split": split}))
    root = _public_folder(pretraining)
    table = read_table(root / "manifest.csv")
    if "label" not in table:
        raise SemcError(
            ExitCode.MANIFEST_INVALID,
            "The public manifest has no column 'label'.",
            "name its columns file, label, group",
        )
    labels = tuple(sorted({str(label) for label in table["label"] if label}))
    site = {"root": root, "allow_ungrouped": True, "split": split, "cache_mb": 4096}
    return _Source(labels, SiteDataConfig.model_validate(site))


def _public_folder(pretraining: PretrainingConfig) -> Path:
    """Return the operator's folder of the public images, or raise DATA_NOT_FOUND."""
    root = Path(os.environ.get(PUBLIC_DATA) or os.devnull) / pretraining.source
    if not (root / "manifest.csv").is_file():
        raise SemcError(
            ExitCode.DATA_NOT_FOUND,
            f"The study's pretraining names the public images '{pretraining.source}', which are not here.",
            f"let {PUBLIC_DATA} name a folder that holds {pretraining.source}/manifest.csv, or use source: phantom",
        )
    return root


def _train(study: StudyConfig, source: _Source, report: Report | None) -> dict[str, Tensor]:
    """Train the public study and return what the private one can take over."""
    assert study.pretraining is not None
    public = public_study(study, source.classes)
    data: SiteData = build_site_data(source.site, public.data, public.training.batch_size)
    images = SiteImages(public.data, source.site, public.model.weights)
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    seed_everything(public.seed)
    network = build_model(public)
    objective = build_objective(public, data.class_counts, len(data.train))
    steps = study.pretraining.steps
    batches = training_batches(
        data.train,
        images,
        batch_size=public.training.batch_size,
        num_steps=steps,
        seed=derive_seed(public.seed, "batches"),
    )

    def counted() -> Any:
        for done, batch in enumerate(batches):
            if report is not None:
                report(done, steps)
            yield batch

    Trainer(public, network, objective, device).train(counted(), global_step=0, total_steps=steps)
    state = {name: tensor.to("cpu", copy=True) for name, tensor in network.state_dict().items()}
    own = build_model(study).state_dict()
    return {
        name: tensor for name, tensor in state.items() if name in own and not name.startswith(_CLASSIFIERS)
    }


def public_study(study: StudyConfig, classes: tuple[str, ...]) -> StudyConfig:
    """Return the study that trains the trunk: the same network and input, the paper's objective, no privacy.

    Args:
        study: The study whose trunk it is.
        classes: Classes of the public images.
    """
    pretraining = study.pretraining
    assert pretraining is not None
    private = study.objective.name == "semc_dp"
    objective = {"mc": study.objective.mc} if private else study.objective.model_dump(mode="json")
    content = {
        "name": "pretraining",
        "seed": derive_seed(study.seed, "pretraining") % 2**31,
        "data": {**study.data.model_dump(mode="json"), "classes": list(classes), "augmentation": "paper"},
        "model": {**study.model.model_dump(mode="json"), "adapter_width": 0},
        "objective": objective,
        "training": {
            "batch_size": pretraining.batch_size,
            "local_steps": pretraining.steps,
            "learning_rate": pretraining.learning_rate,
        },
        "federation": {"sites": ["public"], "rounds": 1, "bn": "average"},
    }
    return parse_study(yaml.safe_dump(content))


def _identity(study: StudyConfig) -> str:
    """Return the hash of everything that decides the trunk: settings, software (it draws the phantom), images."""
    assert study.pretraining is not None
    text = public_study(study, study.data.classes).to_yaml() + study.pretraining.model_dump_json()
    digest = hashlib.sha256(f"{__version__}\n{text}".encode())
    if study.pretraining.source != PHANTOM:
        digest.update(folder_digest(_public_folder(study.pretraining)))
    return digest.hexdigest()
