"""How long to wait before asking again: a tenth of the time already waited, between two limits.

Work that comes soon is met soon, an idle site asks rarely, and no wait adds more than a tenth to a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable

_SHARE = 0.1


class Patience:
    """Waits that grow while nothing comes.

    Args:
        shortest: First wait, seconds.
        longest: No wait is longer, seconds; it wins where it is below `shortest`.
        clock: Tells seconds.
    """

    def __init__(self, shortest: float, longest: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._shortest, self._longest, self._clock = shortest, longest, clock
        self._since: float | None = None

    def next_wait(self) -> float:
        """Return how long to wait now, seconds."""
        now = self._clock()
        if self._since is None:
            self._since = now
        return min(max(self._shortest, _SHARE * (now - self._since)), self._longest)

    def reset(self) -> None:
        """Something came: start again with short waits."""
        self._since = None
