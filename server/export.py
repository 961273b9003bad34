"""A finished model to hand out: the shared weights and the study, without receipts, scores or optimiser.

A run's own checkpoint also tells which hospital took part when and how its training went; whoever only wants to use
the model (`semc-client adopt`) has no business with that.
"""

from __future__ import annotations

from pathlib import Path

from semc.checkpoint import MODEL_PREFIX, save_state
from semc.exit_codes import ExitCode, SemcError
from server.round_checkpoint import SavedRound, load_round, newest_round
from server.run_folder import RunFolder

STUDY_FILE = "study.yaml"


def export_model(run: RunFolder, out: Path, *, best: bool = False) -> int:
    """Write a run's newest weights and its study into a folder.

    Args:
        run: A run with at least one aggregated round.
        out: A new or empty folder.
        best: The weights of the round that was best on the sites' validation images instead.

    Returns:
        The round the weights are of.

    Raises:
        SemcError: USAGE where the folder holds something, CHECKPOINT_INVALID where no round was aggregated, none is
            known as the best, or the checkpoint is damaged; DISK.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SemcError(ExitCode.USAGE, "The output folder is not empty.", "give another --out")
    study = run.study()
    newest = _best_round(run) if best else newest_round(run.checkpoints)
    if newest.number == 0:
        raise SemcError(
            ExitCode.CHECKPOINT_INVALID,
            "The run has only the untrained model.",
            "wait for the end of its first round",
        )
    tensors = {MODEL_PREFIX + name: tensor for name, tensor in newest.model.items()}
    out.mkdir(parents=True, exist_ok=True)
    save_state(out, tensors, {"round": newest.number, "digest": study.digest()})
    (out / STUDY_FILE).write_text(study.to_yaml(), encoding="utf-8")
    return newest.number


def _best_round(run: RunFolder) -> SavedRound:
    number = run.result().best_round
    if number is None:
        raise SemcError(
            ExitCode.CHECKPOINT_INVALID,
            "No round of this run is known as the best: no site told scores of validation images.",
            "export the last round, without --best",
        )
    return load_round(run.checkpoints, number)
