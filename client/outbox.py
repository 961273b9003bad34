"""Replies that were made already: a message that comes twice is answered at once.

A link is lost while a reply is sent, or a coordinator resumes its study: sending again is free, training again costs
a round's time, and with patient-level privacy budget. One reply per round, whole or absent, known by the weights it
answers. It holds what left the site before, or would have, nothing else: with patient-level privacy noised tensors
and the ledger's head, else tensors and metrics.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from client.round_update import RoundUpdate
from semc.checkpoint import STATE_FILE, load_state, prune, save_state, saved_states

OUTBOX: Final = "outbox"
"""Folder of private replies in a study's folder. Who makes a ledger knows by it which studies were private ones, so a
study of mode none keeps its replies under another name."""
REPLIES: Final = "replies"
"""Folder of the replies of a study of mode none."""
KEPT_PRIVATE: Final = 3
KEPT_UNPROTECTED: Final = 2
"""The round that is answered and the one before it: any other can be trained again for nothing."""
_PREFIX: Final = "reply-"


class Outbox:
    """The replies of one site in one study.

    Args:
        folder: The study's folder in the site's state directory.
        private: Whether the study has patient-level privacy.
    """

    def __init__(self, folder: Path, *, private: bool) -> None:
        self._folder = folder / (OUTBOX if private else REPLIES)
        self._kept_rounds = KEPT_PRIVATE if private else KEPT_UNPROTECTED

    def find(self, round_number: int, incoming_sha256: str) -> RoundUpdate | None:
        """Return the reply of a round to these very weights, None where there is none.

        Raises:
            SemcError: CHECKPOINT_INVALID where it is damaged.
        """
        place = self._place(round_number)
        if place not in saved_states(self._folder, _PREFIX):
            return None
        tensors, metadata = load_state(place)
        if metadata.get("incoming_sha256") != incoming_sha256:
            return None
        return RoundUpdate(
            shared=tensors,
            metrics=dict(metadata.get("metrics", {})),
            ledger_head=str(metadata["ledger_head"]),
        )

    def keep(self, round_number: int, incoming_sha256: str, update: RoundUpdate) -> None:
        """Keep a reply before it is sent.

        Replies of later rounds are forgotten: a study that began again has made them untrue, and they would crowd out
        the new ones.

        Raises:
            SemcError: DISK.
        """
        metadata = {
            "incoming_sha256": incoming_sha256,
            "ledger_head": update.ledger_head,
            "metrics": update.metrics,
        }
        place = self._place(round_number)
        save_state(place, update.shared, metadata)
        kept = saved_states(self._folder, _PREFIX)
        for later in kept[kept.index(place) + 1 :]:
            (later / STATE_FILE).unlink()  # first what makes it a reply: a half-removed one is none
            shutil.rmtree(later)
        prune(self._folder, _PREFIX, self._kept_rounds)

    def _place(self, round_number: int) -> Path:
        return self._folder / f"{_PREFIX}{round_number:05d}"
