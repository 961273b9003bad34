"""Remembers on disk that the coordinator accepted this site's key.

Flower refuses an unknown key and a site it still shows online with the same words. Only the memory of an
earlier success tells "never enrolled" (say so at once) from "crashed a moment ago" (offer the key again), and a
coordinator that never took this site (give up after a while) from one that is away (wait for it).
"""

from __future__ import annotations

import json
from pathlib import Path

from semc.whole_file import write_whole


class KnownKey:
    """The last success of one key at one coordinator.

    Args:
        folder: The site's run folder.
        fingerprint: Of the site's public key.
        coordinator: host:port.
    """

    def __init__(self, folder: Path, fingerprint: str, coordinator: str) -> None:
        self._file = folder / "accepted.json"
        self._accepted = {"key": fingerprint, "coordinator": coordinator}
        self._accepted_now = False

    @property
    def is_known(self) -> bool:
        """Whether this key was accepted at this coordinator before."""
        return self._accepted_now or self._is_noted()

    def remember(self) -> None:
        """Note that the coordinator accepted the key.

        Raises:
            OSError: The disk did not take the note; it counts while this process lives.
        """
        self._accepted_now = True
        if not self._is_noted():
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._file, json.dumps(self._accepted).encode())

    def _is_noted(self) -> bool:
        try:
            return bool(json.loads(self._file.read_text(encoding="utf-8")) == self._accepted)
        except (OSError, ValueError):
            return False
