"""One checkpoint per round, saved before the next round is sent: model, server optimiser, receipts, digest.

`round-0000` is the untrained model, so that a run always has a state to go on from. Three are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from semc.checkpoint import MODEL_PREFIX, latest, load_state, prune, save_state
from semc.exit_codes import ExitCode, SemcError
from server.run_folder import CHECKPOINT_PREFIX

KEPT: Final = 3
_OPTIMIZER: Final = "optimizer/"


def save_round(
    folder: Path,
    round_number: int,
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    digest: str,
    history: dict[str, Any],
) -> Path:
    """Save the state after a round, whole or not at all, and remove all but the newest three.

    Args:
        folder: The run's checkpoints.
        round_number: Rounds aggregated so far.
        model: The global tensors that this round made.
        optimizer: State of the server optimiser.
        digest: Digest of the study.
        history: Receipts, losses and counts of all rounds so far.

    Returns:
        The checkpoint's folder.

    Raises:
        SemcError: DISK where it cannot be written.
    """
    target = folder / f"{CHECKPOINT_PREFIX}{round_number:04d}"
    tensors = {MODEL_PREFIX + name: tensor for name, tensor in model.items()}
    tensors |= {_OPTIMIZER + name: tensor for name, tensor in optimizer.items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_state(target, tensors, {"round": round_number, "digest": digest, "history": history})
    prune(folder, CHECKPOINT_PREFIX, KEPT)
    return target


@dataclass(frozen=True)
class SavedRound:
    """The global tensors of a round."""

    number: int
    model: dict[str, Tensor]


def newest_round(folder: Path) -> SavedRound:
    """Return the newest checkpoint's round and global tensors.

    Args:
        folder: The run's checkpoints.

    Raises:
        SemcError: CHECKPOINT_INVALID where there is none, or it is damaged.
    """
    newest = latest(folder, CHECKPOINT_PREFIX)
    if newest is None:
        raise SemcError(ExitCode.CHECKPOINT_INVALID, "The run has no checkpoint.", "run the study first")
    tensors, metadata = load_state(newest)
    model = {
        name.removeprefix(MODEL_PREFIX): tensor
        for name, tensor in tensors.items()
        if name.startswith(MODEL_PREFIX)
    }
    return SavedRound(int(metadata["round"]), model)
