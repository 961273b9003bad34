"""The federation's shared weights as the coordinator hands them out (`semc-server export`), read and checked.

A file from outside: nothing of it is executed (JSON and safetensors), every hash is compared, and it must be the
study's own: same digest, same tensors, same shapes, finite numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from semc.checkpoint import MODEL_PREFIX, load_state
from semc.config import StudyConfig
from semc.exit_codes import ExitCode, SemcError

_DIGITS_SHOWN: Final = 12
_ONE_RUN: Final = "take the weights and study.yaml of one `semc-server export`"


class _Description(BaseModel):
    """What a round's checkpoint says of itself; its history is not looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    round: int = Field(ge=0)
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")


@dataclass(frozen=True)
class SharedWeights:
    """A federation's model after a round."""

    tensors: dict[str, Tensor]
    round_number: int


def read_shared_weights(path: Path, study: StudyConfig, shapes: dict[str, tuple[int, ...]]) -> SharedWeights:
    """Read a checkpoint of the coordinator.

    Args:
        path: The exported folder, or a checkpoint of a run (`checkpoints/round-0010`), or a file in one of them.
        study: The study it must belong to.
        shapes: Shape of every shared tensor of the study's network.

    Raises:
        SemcError: CHECKPOINT_INVALID where it is missing, damaged or no round's checkpoint; STUDY_MISMATCH, naming
            the difference, where it is of another network or study.
    """
    if not path.exists():
        raise SemcError(
            ExitCode.CHECKPOINT_INVALID,
            "There is no checkpoint at the path given as --weights.",
            "ask the coordinator for what `semc-server export` wrote, and give the path of that folder",
        )
    tensors, metadata = load_state(path if path.is_dir() else path.parent)
    try:
        description = _Description.model_validate(metadata)
    except ValidationError as error:
        raise SemcError(
            ExitCode.CHECKPOINT_INVALID,
            "The weights are not the checkpoint of a federation's round.",
            _ONE_RUN,
        ) from error
    model = {
        name.removeprefix(MODEL_PREFIX): tensor
        for name, tensor in tensors.items()
        if name.startswith(MODEL_PREFIX)
    }
    difference = _difference(model, shapes)
    if difference is not None:
        raise SemcError(
            ExitCode.STUDY_MISMATCH, f"The weights are of another network: {difference}.", _ONE_RUN
        )
    if description.digest != study.digest():
        theirs, ours = description.digest[:_DIGITS_SHOWN], study.digest()[:_DIGITS_SHOWN]
        raise SemcError(
            ExitCode.STUDY_MISMATCH,
            f"The weights belong to study {theirs}, the study given is {ours}.",
            _ONE_RUN,
        )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in model.values()):
        raise SemcError(
            ExitCode.CHECKPOINT_INVALID,
            "The weights hold numbers that are not finite.",
            "ask the coordinator for an earlier round's checkpoint",
        )
    return SharedWeights(model, description.round)


def _difference(model: dict[str, Tensor], shapes: dict[str, tuple[int, ...]]) -> str | None:
    """Say in what a model's tensors differ from the expected ones; None where they agree."""
    missing, unknown = sorted(shapes.keys() - model.keys()), sorted(model.keys() - shapes.keys())
    other = [
        name for name in sorted(shapes.keys() & model.keys()) if tuple(model[name].shape) != shapes[name]
    ]
    parts = []
    if missing:
        parts.append(f"{len(missing)} of the study's tensors are missing, first '{missing[0]}'")
    if unknown:
        parts.append(f"{len(unknown)} are unknown to it, first '{unknown[0]}'")
    if other:
        name = other[0]
        found = f"{list(model[name].shape)} instead of {list(shapes[name])}"
        parts.append(f"{len(other)} have another shape, first '{name}' {found}")
    return "; ".join(parts) or None
