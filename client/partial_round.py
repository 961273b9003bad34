"""The round a site is in the middle of, on its own disk: a crash, a reboot or a lost link costs minutes, not a round.

It is kept for one message alone: the same site, study, round, incoming weights and data. Whatever else comes in
makes it worthless and it is removed, as it is once the round's own state is saved. Rounds with patient-level privacy
keep nothing of the kind: their noise and choice of patients are drawn and forgotten, half a private round is data
without its protection, and one that is lost is a new charge to the ledger.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client.round_update import MetricValue
from semc.checkpoint import STATE_FILE, load_state, save_state
from semc.exit_codes import SemcError
from semc.training import RoundPoint, TakePoint

PARTIAL: Final = "partial"
"""Its folder in a study's folder."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StartedRound:
    """What an earlier try of a round left."""

    point: RoundPoint
    metrics: dict[str, MetricValue]
    """Counts of the incoming weights, made before the first step."""


class PartialRound:
    """The saved point of one round.

    Args:
        folder: The study's folder in the site's state directory.
        belongs_to: All that the round's result depends on; a point of anything else is not taken up.
        every_seconds: Least time between two savings; 0 = after every step.
    """

    def __init__(
        self, folder: Path, belongs_to: Mapping[str, str | int | bool], every_seconds: float
    ) -> None:
        self._folder = folder / PARTIAL
        self._belongs_to = dict(belongs_to)
        self._every_seconds = every_seconds
        self._last = time.monotonic()
        self._warned = False

    def find(self) -> StartedRound | None:
        """Return what was saved of this very round; anything else, or damaged, is removed."""
        if not (self._folder / STATE_FILE).is_file():
            return None
        try:
            tensors, metadata = load_state(self._folder)
            if metadata["belongs_to"] != self._belongs_to:
                log.info("the begun round of another message is forgotten")
                self.remove()
                return None
            point = RoundPoint(int(metadata["steps"]), float(metadata["seconds"]), tensors)
            return StartedRound(point, dict(metadata["metrics"]))
        except (SemcError, KeyError, TypeError, ValueError):
            self.discard()
            return None

    def keep_if_due(self, metrics: Mapping[str, MetricValue], take: TakePoint) -> None:
        """Save the round's present point, where the last saving is long enough ago.

        A disk that is full does not stop the round: it only costs more if it is interrupted.

        Args:
            metrics: Counts of the incoming weights.
            take: Copies the point.
        """
        if time.monotonic() - self._last < self._every_seconds:
            return
        point = take()
        metadata = {
            "belongs_to": self._belongs_to,
            "steps": point.steps,
            "seconds": point.seconds,
            "metrics": dict(metrics),
        }
        try:
            save_state(self._folder, point.tensors, metadata)
        except SemcError as error:
            if not self._warned:
                log.warning("the begun round could not be saved, it goes on: %s", error.line())
            self._warned = True
        self._last = time.monotonic()

    def discard(self) -> None:
        """Remove what cannot be used, and say so."""
        log.warning("the saved point of the begun round is damaged: the round is trained from its beginning")
        self.remove()

    def remove(self) -> None:
        """Remove what is saved, whole or not; nothing of it is needed, so nothing of it can fail."""
        with suppress(OSError):
            (self._folder / STATE_FILE).unlink(missing_ok=True)  # first what makes it a state
        shutil.rmtree(self._folder, ignore_errors=True)
