"""What a program holds: memory, open handles, disk."""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Footprint:
    """At one moment, between two studies."""

    private_mb: float
    """Memory of its own, MB (shared libraries are not counted)."""
    handles: int
    """Open files, sockets and pipes."""


def footprint_of(process: psutil.Process) -> Footprint:
    """Return what a process holds now."""
    return Footprint(process.memory_full_info().uss / 1e6, process.num_fds())


def megabytes_in(folder: Path, *, without: Sequence[str] = ()) -> float:
    """Return the size of a folder's files, MB.

    Args:
        folder: The folder; files that vanish while it is read count as absent.
        without: Names of subfolders that do not count.
    """
    total = 0
    for path in folder.rglob("*"):
        if not set(path.relative_to(folder).parts) & set(without):
            with contextlib.suppress(FileNotFoundError):
                total += path.lstat().st_size
    return total / 1e6


@dataclass(frozen=True)
class Trend:
    """How a figure went over many studies: medians, so that one odd moment tells nothing."""

    early: float
    """Studies 6 to 15."""
    late: float
    """The last ten."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Trend:
        """Return the trend of a figure taken after each of at least 25 studies."""
        assert len(values) >= 25
        return cls(statistics.median(values[5:15]), statistics.median(values[-10:]))

    @property
    def growth(self) -> float:
        """Late less early."""
        return self.late - self.early
