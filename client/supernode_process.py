"""A site's SuperNode as its supervisor sees it: what its log tells about the coordinator."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Final

from client import supernode
from client.child import Child
from client.environment import flower_environment
from client.log_file import LogFile
from client.supernode import Sign, read_sign
from semc.config import SiteConfig

OUTAGE_SECONDS: Final = 5.0
"""A coordinator is away when it has been silent for this long; shorter pauses are a busy network."""


class SupernodeProcess:
    """One run of a site's SuperNode.

    Args:
        site: The hospital.
        port: Loopback port for its worker.
        secret_file: What it shares with the worker.
        log: Receives its log lines.
    """

    def __init__(self, site: SiteConfig, port: int, secret_file: Path, log: LogFile) -> None:
        self._lock = threading.Lock()
        self._signs: set[Sign] = set()
        self._silent_since: float | None = None
        self._child = Child(
            supernode.MODULE,
            [str(site.poll_seconds), *supernode.arguments(site, port, secret_file)],
            flower_environment(site.state_directory / "flower" / "supernode"),
            log,
            self._read,
        )

    def has_shown(self, sign: Sign) -> bool:
        """Whether its log has told this."""
        with self._lock:
            return sign in self._signs

    @property
    def coordinator_is_away(self) -> bool:
        """Whether the coordinator has not answered it for a while."""
        with self._lock:
            since = self._silent_since
        return since is not None and time.monotonic() - since > OUTAGE_SECONDS

    def ended(self) -> int | None:
        """Return its exit status once it has ended."""
        return self._child.ended()

    def ask_to_end(self) -> None:
        """Send SIGTERM: it tells the coordinator that it leaves."""
        self._child.ask_to_end()

    def end(self, grace_seconds: float) -> None:
        """End it: SIGTERM, and SIGKILL once the grace is over."""
        self._child.end(grace_seconds)

    def _read(self, line: str) -> bool:
        sign = read_sign(line)
        if sign is not None:
            with self._lock:
                self._signs.add(sign)
                if sign is Sign.RETRYING:
                    self._silent_since = self._silent_since or time.monotonic()
                elif sign is Sign.ANSWERED:
                    self._silent_since = None
        return False
