"""When a process that keeps ending is no accident any more."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from semc.exit_codes import ExitCode, SemcError

MOST_CRASHES: Final = 5
WINDOW_SECONDS: Final = 600.0


class CrashCount:
    """Counts crashes that nothing useful came between.

    Args:
        clock: Tells seconds, and is not moved by whoever sets the time of day.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._crashes: deque[float] = deque(maxlen=MOST_CRASHES)

    def add(self, kind: str) -> None:
        """Count one crash.

        Args:
            kind: What crashed: `training` or `network`.

        Raises:
            SemcError: INTERNAL for the fifth within ten minutes.
        """
        now = self._clock()
        self._crashes.append(now)
        if len(self._crashes) == MOST_CRASHES and now - self._crashes[0] < WINDOW_SECONDS:
            raise SemcError(
                ExitCode.INTERNAL,
                f"The {kind} process keeps ending ({MOST_CRASHES} times within ten minutes, "
                "and no message was answered between them).",
                "read the last lines of worker.log and supernode.log in the state directory's logs folder",
            )

    def forget(self) -> None:
        """A message was answered: what crashed before was an accident."""
        self._crashes.clear()
