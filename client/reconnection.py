"""Waiting for a coordinator: a while before the first join, without limit once it accepted this site.

Three things can be in the way, and all three can pass by themselves: the coordinator does not answer, this machine's
clock is so far off that its signatures are refused, the certificate is not trusted (it expired, or the clock says so).
Before the first join the last two are mistakes somebody must hear of, and end the program. Later they are said once,
and waited for. Nothing here reads the time of day, so a clock that jumps changes no wait.
"""

from __future__ import annotations

import threading
import time

from client.backoff import Backoff
from client.console import Console
from client.coordinator import ask, check_clock
from client.known_key import KnownKey
from semc.config.site import CoordinatorConfig
from semc.exit_codes import ExitCode, SemcError

_LOOK_SECONDS = 0.1


class Reconnection:
    """One site's way back to its coordinator.

    Args:
        coordinator: Where it is.
        known_key: Whether it accepted this site before.
        console: Tells the operator.
        stop: Ends every wait.
        first_seconds: How long a coordinator that never accepted this site may stay silent.
    """

    def __init__(
        self,
        coordinator: CoordinatorConfig,
        known_key: KnownKey,
        console: Console,
        stop: threading.Event,
        first_seconds: float,
    ) -> None:
        self._coordinator, self._known_key = coordinator, known_key
        self._console, self._stop, self._first_seconds = console, stop, first_seconds
        self._backoff = Backoff()
        self._said: ExitCode | None = None

    def wait(self) -> None:
        """Wait until the coordinator answers and would take this site's signatures, or until told to stop.

        Raises:
            SemcError: Where the coordinator never accepted this site: TLS_UNTRUSTED, CLOCK_SKEW; SERVER_UNREACHABLE
                once the time is over.
        """
        deadline = time.monotonic() + self._first_seconds
        while (obstacle := self._obstacle()) is not None:
            left = deadline - time.monotonic()
            wait = self._backoff.next_wait()
            if not self._known_key.is_known:
                if obstacle.code is not ExitCode.SERVER_UNREACHABLE or left <= 0:
                    raise obstacle
                wait = min(wait, left)
            self._tell(obstacle)
            self._stop.wait(wait)
        self._said = None

    def next_wait(self) -> float:
        """Return how long to wait before the next try to join, seconds."""
        return self._backoff.next_wait()

    def joined(self) -> None:
        """The coordinator accepted this site."""
        self._backoff.reset()

    def _obstacle(self) -> SemcError | None:
        """Ask once; in a thread, because looking up a name or a half-open connection listens to no signal."""
        found: list[SemcError] = []

        def look() -> None:
            try:
                check_clock(ask(self._coordinator))
            except SemcError as error:
                found.append(error)

        thread = threading.Thread(target=look, name="asking the coordinator", daemon=True)
        thread.start()
        while thread.is_alive() and not self._stop.is_set():
            thread.join(_LOOK_SECONDS)
        return found[0] if found and not self._stop.is_set() else None

    def _tell(self, obstacle: SemcError) -> None:
        """Say once what is in the way, then keep it in the status line alone."""
        if not self._known_key.is_known:
            what_next = f"trying for {self._first_seconds:.0f} s"
        else:
            what_next = "waiting for as long as it takes, since it accepted this site before"
        if self._said is not obstacle.code:
            self._said = obstacle.code
            self._console.say(f"{obstacle.problem} Fix: {obstacle.fix}; {what_next}")
        self._console.now(obstacle.problem)
