"""A disk that is full while a site takes part: said once, and once more when it is over.

What a site must keep (its state, a finished reply) is refused loudly where it is written. This is about what it can do
without: log lines, and the note that the coordinator accepted its key.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

QUIET_SECONDS: Final = 30.0
"""Trouble is over after this long without any: on a full disk a short line still fits now and then."""


class DiskTrouble:
    """Tells the operator about a disk that refuses what is written.

    Args:
        say: Prints a line the operator sees.
        clock: Tells seconds.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._last: float | None = None
        self._lock = threading.Lock()

    def met(self, error: OSError) -> None:
        """Something could not be written."""
        with self._lock:
            first, self._last = self._last is None, self._clock()
        if first:
            self._say(
                f"the state directory cannot be written ({error.strerror}): log lines are dropped and rounds will be "
                "declined until it can. Fix: free space; no restart is needed"
            )

    def written(self) -> None:
        """Something could be written."""
        with self._lock:
            if self._last is None or self._clock() - self._last < QUIET_SECONDS:
                return
            self._last = None
        self._say("the state directory can be written again")
