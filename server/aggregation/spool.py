"""Replies on disk: each is written whole on arrival and read back one tensor at a time.

The coordinator's memory is then flat in the number of sites (one model and one tensor of each site), and a
reply that Flower has handed over and forgotten survives a crash of the round loop.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from semc.exit_codes import ExitCode, SemcError


@dataclass(frozen=True)
class SpoolEntry:
    """One site's reply of one round."""

    site: str
    weight: float
    path: Path
    """A safetensors file that has already been validated."""


class SpoolReader:
    """Open replies; gives one tensor of every site at a time, in site-name order."""

    def __init__(self, entries: list[SpoolEntry], stack: ExitStack) -> None:
        self._files = [
            (entry.weight, stack.enter_context(safe_open(entry.path, framework="pt")))
            for entry in sorted(entries, key=lambda entry: entry.site)
        ]

    def rows(self, name: str) -> Iterator[tuple[float, Tensor]]:
        """Yield weight and tensor of each site."""
        for weight, file in self._files:
            yield weight, file.get_tensor(name)


class Spool:
    """The replies of the round in hand.

    Args:
        folder: Emptied at the start of each round; made if absent.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries: dict[str, SpoolEntry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, site: str, data: bytes, weight: float) -> SpoolEntry:
        """Write one validated reply.

        Args:
            site: Name of the site; at most one reply each.
            data: A safetensors file.
            weight: Its weight in the mean, > 0.

        Raises:
            SemcError: DISK where the file cannot be written.
            ValueError: The site already has a reply in this round.
        """
        if site in self._entries:
            raise ValueError(f"site '{site}' already has a reply in this round")
        path = self._folder / f"{site}.safetensors"
        part = path.with_suffix(".part")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
            os.replace(part, path)
        except OSError as error:
            raise SemcError(
                ExitCode.DISK,
                f"The reply of site '{site}' could not be written ({error.strerror}).",
                "free space on the coordinator's disk",
            ) from error
        entry = SpoolEntry(site=site, weight=weight, path=path)
        self._entries[site] = entry
        return entry

    @contextmanager
    def reading(self) -> Iterator[SpoolReader]:
        """Open every reply for aggregation."""
        with ExitStack() as stack:
            yield SpoolReader(list(self._entries.values()), stack)

    def clear(self) -> None:
        """Forget the round and remove its files."""
        self._entries.clear()
        shutil.rmtree(self._folder, ignore_errors=True)
