"""How long to wait before knocking at a coordinator's door again: doubled each time, and never all sites at once."""

from __future__ import annotations

import random
from typing import Final

LONGEST_WAIT_SECONDS: Final = 30.0
"""A coordinator that is back is met again within this time, however long it was away."""
_FIRST_WAIT_SECONDS: Final = 1.0
_LEAST_SHARE: Final = 0.5


class Backoff:
    """Waits of 1, 2, 4, ... 30 s, each shortened by chance to between half and all of it.

    Sites that lost the same coordinator in the same second would otherwise all come back in the same second.
    """

    def __init__(self) -> None:
        self._failures = 0

    def next_wait(self) -> float:
        """Count one more failure and return the wait it brings, seconds."""
        whole = min(_FIRST_WAIT_SECONDS * 2.0 ** min(self._failures, 16), LONGEST_WAIT_SECONDS)
        self._failures += 1
        return whole * random.uniform(_LEAST_SHARE, 1.0)  # noqa: S311 - spreads load, protects nothing

    def reset(self) -> None:
        """It answered: start again with short waits."""
        self._failures = 0
