"""Private updates that were made already: sending one again is free, making it again would cost budget again.

One reply per round, whole or absent, known by the weights it answers. It holds what left the site before, or would
have: noised tensors and the ledger's head, nothing else.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from torch import Tensor

from client.round_update import RoundUpdate
from semc.checkpoint import STATE_FILE, load_state, prune, save_state, saved_states

KEPT_ROUNDS: Final = 3
OUTBOX: Final = "outbox"
"""Its folder in a study's folder; a study of mode none has none."""
_PREFIX: Final = "reply-"


class Outbox:
    """The replies of one site in one study.

    Args:
        folder: The study's folder in the site's state directory.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / OUTBOX

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
        return RoundUpdate(shared=tensors, metrics={}, ledger_head=str(metadata["ledger_head"]))

    def keep(self, round_number: int, incoming_sha256: str, tensors: dict[str, Tensor], head: str) -> None:
        """Keep a reply before it is sent.

        Replies of later rounds are forgotten: a study that began again has made them untrue, and they would crowd out
        the new ones.

        Raises:
            SemcError: DISK.
        """
        metadata = {"incoming_sha256": incoming_sha256, "ledger_head": head}
        place = self._place(round_number)
        save_state(place, tensors, metadata)
        kept = saved_states(self._folder, _PREFIX)
        for later in kept[kept.index(place) + 1 :]:
            (later / STATE_FILE).unlink()  # first what makes it a reply: a half-removed one is none
            shutil.rmtree(later)
        prune(self._folder, _PREFIX, KEPT_ROUNDS)

    def _place(self, round_number: int) -> Path:
        return self._folder / f"{_PREFIX}{round_number:05d}"
