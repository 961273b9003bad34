"""What a site keeps between rounds: on its own disk, per study and round, whole or absent.

Batch-norm statistics, queue and optimiser are this hospital's; they never travel, and Flower's own per-node
state lives in memory and dies with its process. State R is what was left after round R. A message for round R
always starts from the newest state before R, so a message that comes twice gives the same answer twice.

A coordinator that falls back over damaged checkpoints goes back some rounds, and the site with it: it keeps a state
for each checkpoint there can be, and one for the round in hand. Where that is not enough it says so; training from
fresh statistics without a word would make the round another one.
"""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from torch import Tensor

from client.lock import held
from semc.checkpoint import STATE_FILE, load_metadata, load_state, prune, save_state, saved_states
from semc.exit_codes import ExitCode, SemcError

_PREFIX: Final = "round-"
_DIGITS_OF_DIGEST: Final = 16
_PARTS: Final = ("network", "objective", "optimiser")


@dataclass(frozen=True)
class SiteState:
    """What a site carries from one round to the next; tensors on the CPU, by name."""

    network: dict[str, Tensor]
    """The network's local part: batch-norm statistics, under `fedbn` gamma and beta too."""
    objective: dict[str, Tensor]
    """Queue rows, labels, ids; moving averages."""
    optimiser: dict[str, Tensor]
    """Momentum."""
    data: str = ""
    """SHA-256 of the site's data in that round; empty where none was noted, as with patient-level privacy."""


class LocalState:
    """The states of one site in one study.

    Args:
        state_directory: The site's folder for everything it keeps.
        site: Name of the hospital.
        digest: The study's digest; another study has other states.
        checkpoints_kept: How many rounds' checkpoints its coordinator keeps.
    """

    def __init__(self, state_directory: Path, site: str, digest: str, checkpoints_kept: int) -> None:
        self._root = state_directory
        self._folder = state_directory / digest[:_DIGITS_OF_DIGEST]
        self._owner = {"site": site, "study": digest}
        self._kept_states = checkpoints_kept + 1

    @property
    def folder(self) -> Path:
        """Folder of this study's states and of the log of its rounds."""
        return self._folder

    @property
    def adopted(self) -> Path:
        """Folder of the model this site took over without having trained it."""
        return self._folder / "adopted"

    def lock(self) -> AbstractContextManager[None]:
        """Hold the site's training lock: one process trains at a time, whatever the study.

        Raises:
            SemcError: ALREADY_RUNNING where another process holds it, DISK where the folder is not writable.
        """
        return held(
            self._root / "training.lock",
            "Another process is training with this site's state.",
            "stop the other process, or give this one its own state_directory",
        )

    def newest(self, up_to: int) -> SiteState | None:
        """Return the newest state of round `up_to` or before, or None where the site had trained none by then.

        Raises:
            SemcError: CHECKPOINT_INVALID where it is damaged or belongs to another site or study, or where there were
                such states and none is kept.
        """
        earlier = self._saved_up_to(up_to)
        if not earlier:
            self._check_not_forgotten(up_to)
            return None
        tensors, metadata = load_state(earlier[-1])
        if {key: metadata.get(key) for key in self._owner} != self._owner:
            raise SemcError(
                ExitCode.CHECKPOINT_INVALID,
                "The saved state belongs to another site or study.",
                "give every site its own state_directory",
            )
        parts = {part: _part(tensors, part) for part in _PARTS}
        return SiteState(**parts, data=str(metadata.get("data", "")))

    def answered(self, round_number: int) -> str | None:
        """Return the SHA-256 of the weights a round's state was left by, None where there is no such state.

        Raises:
            SemcError: CHECKPOINT_INVALID where it is damaged.
        """
        place = self._place(round_number)
        if place not in saved_states(self._folder, _PREFIX):
            return None
        return str(load_state(place)[1]["incoming_sha256"])

    def save(self, round_number: int, state: SiteState, incoming_sha256: str) -> None:
        """Save the state after a round and forget what no message can need any more.

        States of later rounds are forgotten too: a federation that went back to an earlier round has made
        them untrue.

        Raises:
            SemcError: DISK.
        """
        tensors = {
            f"{part}/{name}": tensor for part in _PARTS for name, tensor in getattr(state, part).items()
        }
        metadata = {
            **self._owner,
            "round": round_number,
            "incoming_sha256": incoming_sha256,
            "data": state.data,
            "first_round": self._first_round(round_number),
        }
        save_state(self._place(round_number), tensors, metadata)
        for path in saved_states(self._folder, _PREFIX):
            if _round_of(path) > round_number:
                (path / STATE_FILE).unlink()
                shutil.rmtree(path)
        prune(self._folder, _PREFIX, self._kept_states)

    def _first_round(self, round_number: int) -> int:
        """Return the round the site began with to come to a state: this one, or that of the state before it."""
        earlier = self._saved_up_to(round_number - 1)
        return int(load_metadata(earlier[-1])["first_round"]) if earlier else round_number

    def _check_not_forgotten(self, up_to: int) -> None:
        """Tell a site that had not begun by then from one whose states of that time are gone."""
        later = saved_states(self._folder, _PREFIX)
        if later and int(load_metadata(later[0])["first_round"]) <= up_to:
            raise SemcError(
                ExitCode.CHECKPOINT_INVALID,
                f"The study went back to its round {up_to + 1}, but the oldest state kept here is that after round "
                f"{_round_of(later[0])}.",
                f"restore the states up to round {up_to} from a backup of the state directory; where there is none, "
                "remove this study's folder there: the site then takes part as one that joins anew",
            )

    def _saved_up_to(self, round_number: int) -> list[Path]:
        return [path for path in saved_states(self._folder, _PREFIX) if _round_of(path) <= round_number]

    def _place(self, round_number: int) -> Path:
        return self._folder / f"{_PREFIX}{round_number:05d}"


def data_trained_last(state_directory: Path, study: str | None = None) -> str | None:
    """Return the SHA-256 of the data behind the state saved last; None where none is known.

    Args:
        state_directory: The site's folder for everything it keeps.
        study: Digest of the study; None: whichever was trained last.
    """
    try:
        folder = "*" if study is None else study[:_DIGITS_OF_DIGEST]
        described = state_directory.glob(f"{folder}/{_PREFIX}*/{STATE_FILE}")
        newest = max(described, key=lambda file: file.stat().st_mtime_ns)
        return load_metadata(newest.parent).get("data") or None
    except (OSError, ValueError, SemcError):
        return None


def _round_of(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def _part(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    prefix = f"{part}/"
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
