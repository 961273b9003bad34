"""One fault and what became of the study it hit."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class FaultRow:
    """A line of the table that `make faults` prints and writes."""

    fault: str
    """Kind: kill, network, disk, ..."""
    cell: str
    """Who was hit, and when."""
    ended: str
    """How the study ended."""
    recovery_seconds: float | None = None
    """From the fault to the study's next progress."""
    delay_seconds: float | None = None
    """The study's time beyond that of the uninterrupted one."""
    figures: dict[str, float] = field(default_factory=dict)
    """Whatever else was measured."""

    def plain(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)
