"""The federation's model as the coordinator holds it: the shared tensors, and what is known of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from semc.config import StudyConfig
from semc.parameter_exchange import (
    batch_norm_names,
    shared_schema,
    shared_shapes,
    split_parameters,
    update_shapes,
)
from semc.training.pretraining import Report, initial_network
from semc.wire import WireDtype, pack


@dataclass(frozen=True)
class GlobalModel:
    """What every site starts a study from."""

    tensors: Mapping[str, Tensor]
    """Shared tensors by state key, float32, drawn from the study's seed."""
    shapes: Mapping[str, tuple[int, ...]]
    update_shapes: Mapping[str, tuple[int, ...]]
    """Of the tensors that sites send back; under `bn: frozen` only what they train, the others never change."""
    schema: str
    """Fingerprint a site must reproduce."""
    batch_norm: frozenset[str]
    """Shared keys of batch norm, which no server optimiser touches."""


def initial_model(study: StudyConfig, keep: Path | None = None, report: Report | None = None) -> GlobalModel:
    """Build the study's network once, pretrain its trunk where the study says so, and keep its shared part.

    Args:
        study: The study.
        keep: Folder of the pretrained trunk: found again, or written.
        report: Told the steps of pretraining.

    Raises:
        SemcError: WEIGHTS_INVALID; with pretraining DATA_NOT_FOUND, RUN_FAILED or DISK.
    """
    network = initial_network(study, keep=keep, report=report)
    bn = study.federation.bn
    return GlobalModel(
        tensors=split_parameters(network, bn).shared,
        shapes=shared_shapes(network, bn),
        update_shapes=update_shapes(network, bn),
        schema=shared_schema(network, bn),
        batch_norm=batch_norm_names(network, bn),
    )


def weights_sha256(tensors: Mapping[str, Tensor], dtype: WireDtype) -> str:
    """Return the SHA-256 (hex) of shared tensors as they are sent; equal weights give equal text."""
    return hashlib.sha256(pack(tensors, dtype)).hexdigest()
