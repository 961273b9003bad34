"""One checkpoint per round, saved before the next round is sent: all that a study needs to go on, and whose it is.

`round-0000` is the untrained model, so that a run always has a state to go on from. The newest few are kept, and the
best by validation. A damaged one is passed over for the one before it; one of another study or another network is
refused with the difference.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import ValidationError
from torch import Tensor

import semc
from semc.checkpoint import MODEL_PREFIX, load_state, prune, save_state, saved_states
from semc.config import StudyConfig
from semc.config.difference import difference
from semc.exit_codes import ExitCode, SemcError
from semc.reporting.receipt import SignedReceipt

CHECKPOINT_PREFIX: Final = "round-"
_OPTIMIZER: Final = "optimizer/"


def software() -> dict[str, str]:
    """Return the versions behind a result."""
    return {
        "semc": semc.__version__,
        "flwr": version("flwr"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


@dataclass(frozen=True)
class SavedRound:
    """The state after a round."""

    number: int
    """Rounds aggregated so far."""
    model: Mapping[str, Tensor]
    """The global tensors that this round made."""
    optimizer: Mapping[str, Tensor]
    """State of the server optimiser."""
    history: dict[str, Any]
    """Losses and counts of all rounds so far."""
    receipts: tuple[SignedReceipt, ...]
    """Who was in which round."""
    software: dict[str, str] = field(default_factory=software)
    """Versions that made it."""


class RoundCheckpoints:
    """The checkpoints of one run.

    Args:
        folder: Made where missing.
        study: The study they must be of.
        shapes: Shape of every global tensor of the study's network by name.
    """

    def __init__(self, folder: Path, study: StudyConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._folder, self._study, self._shapes = folder, study, shapes

    def save(self, saved: SavedRound, best: int | None) -> None:
        """Save the state after a round, whole or not at all, and remove what is not kept.

        Args:
            saved: The state.
            best: The best round so far by validation, which is kept beside the newest.

        Raises:
            SemcError: DISK where it cannot be written.
        """
        tensors = {MODEL_PREFIX + name: tensor for name, tensor in saved.model.items()}
        tensors |= {_OPTIMIZER + name: tensor for name, tensor in saved.optimizer.items()}
        metadata = {
            "round": saved.number,
            "digest": self._study.digest(),
            "study": self._study.model_dump(mode="json"),
            "history": saved.history,
            "receipts": [receipt.model_dump(mode="json") for receipt in saved.receipts],
            "software": saved.software,
        }
        save_state(self._place(saved.number), tensors, metadata)
        self.keep(best)

    def keep(self, best: int | None) -> None:
        """Remove all checkpoints but the newest, as many as the study says, and the best.

        Raises:
            SemcError: DISK where one cannot be removed.
        """
        spare = () if best is None else (self._place(best),)
        prune(self._folder, CHECKPOINT_PREFIX, self._study.federation.checkpoints_kept, spare)

    def newest(self) -> tuple[SavedRound | None, list[str]]:
        """Return the newest checkpoint that is whole, None before the first, and the names of damaged newer ones.

        Raises:
            SemcError: CHECKPOINT_INVALID where all are damaged, STUDY_MISMATCH where it is of another study or network.
        """
        damaged: list[str] = []
        for folder in reversed(saved_states(self._folder, CHECKPOINT_PREFIX)):
            try:
                tensors, metadata = load_state(folder)
            except SemcError:
                damaged.append(folder.name)
                continue
            self._require_own(tensors, metadata)
            return _saved_round(tensors, metadata), damaged
        if damaged:
            raise SemcError(
                ExitCode.CHECKPOINT_INVALID,
                f"All checkpoints of this run are damaged: {', '.join(damaged)}.",
                "restore one from a backup, or run the study again",
            )
        return None, damaged

    def _place(self, number: int) -> Path:
        return self._folder / f"{CHECKPOINT_PREFIX}{number:04d}"

    def _require_own(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
        """Refuse a state that this study cannot go on from."""
        found = difference(metadata.get("study", {}), self._study.model_dump(mode="json"))
        shapes = {
            name.removeprefix(MODEL_PREFIX): list(tensor.shape)
            for name, tensor in tensors.items()
            if name.startswith(MODEL_PREFIX)
        }
        found += difference(shapes, {name: list(shape) for name, shape in self._shapes.items()})
        if not found and metadata.get("digest") == self._study.digest():
            return
        what = "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")
        raise SemcError(
            ExitCode.STUDY_MISMATCH,
            f"The checkpoint is of another study or network ({what or 'another digest: protocol or Flower version'}).",
            "go on with the study and the software that made it, or run the study anew",
        )


def newest_round(folder: Path) -> SavedRound:
    """Return the newest whole checkpoint of a run, whatever its study.

    Args:
        folder: The run's checkpoints.

    Raises:
        SemcError: CHECKPOINT_INVALID where there is none, or all are damaged.
    """
    for place in reversed(saved_states(folder, CHECKPOINT_PREFIX)):
        try:
            return _saved_round(*load_state(place))
        except SemcError:
            continue
    raise SemcError(ExitCode.CHECKPOINT_INVALID, "The run has no whole checkpoint.", "run the study first")


def load_round(folder: Path, number: int) -> SavedRound:
    """Return the checkpoint of one round, whatever its study.

    Args:
        folder: The run's checkpoints.
        number: The round.

    Raises:
        SemcError: CHECKPOINT_INVALID where it is not kept or damaged.
    """
    return _saved_round(*load_state(folder / f"{CHECKPOINT_PREFIX}{number:04d}"))


def _saved_round(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> SavedRound:
    try:
        return SavedRound(
            number=int(metadata["round"]),
            model=_under(MODEL_PREFIX, tensors),
            optimizer=_under(_OPTIMIZER, tensors),
            history=dict(metadata["history"]),
            receipts=tuple(SignedReceipt.model_validate(entry) for entry in metadata["receipts"]),
            software=dict(metadata["software"]),
        )
    except (KeyError, TypeError, ValidationError) as error:
        raise SemcError(
            ExitCode.CHECKPOINT_INVALID,
            "The checkpoint was written by another version of this software.",
            "go on with the version that wrote it, or run the study anew",
        ) from error


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
