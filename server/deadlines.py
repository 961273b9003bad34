"""How long each site is waited for in a round, learnt from its own answers.

One deadline for all is either too short for the largest hospital, which is always the slowest, or so long that a dead
small one holds everybody up for hours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from semc.config import FederationConfig
from semc.reporting.receipt import SignedReceipt

_LATEST: Final = 5


def site_deadlines(federation: FederationConfig, receipts: Sequence[SignedReceipt]) -> dict[str, float]:
    """Return each named site's deadline for the next round, seconds from its beginning.

    A site without an answer so far, or that was late the last time, gets `deadline_seconds`; the others
    `deadline_factor` times the slowest of their last five answers, at least `deadline_floor_seconds` and at most
    `deadline_seconds`. Answers whose time nobody measured whole (the round loop was started anew) teach nothing.

    Args:
        federation: The limits.
        receipts: The rounds so far, oldest first.
    """
    longest = federation.deadline_seconds
    floor = min(federation.deadline_floor_seconds, longest)
    deadlines: dict[str, float] = {}
    for site in federation.sites:
        entries = [receipt.sites[site] for receipt in receipts if site in receipt.sites]
        seconds = [entry.seconds for entry in entries if entry.state == "in" and entry.seconds is not None]
        late = bool(entries) and entries[-1].state == "late"
        learnt = federation.deadline_factor * max(seconds[-_LATEST:]) if seconds and not late else longest
        deadlines[site] = min(max(learnt, floor), longest)
    return deadlines
