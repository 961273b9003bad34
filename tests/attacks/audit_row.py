"""One line of the privacy audit: a figure with its threshold, and the same figure where the protection is off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Control:
    """The same measurement on something broken; it must show the leak, or the figure proves nothing."""

    name: str
    value: float
    at_least: float

    @property
    def bites(self) -> bool:
        """Whether the leak was found."""
        return self.value >= self.at_least


@dataclass(frozen=True)
class AuditRow:
    """What an attack reached against the real code, and against its broken twins."""

    attack: str
    setting: str
    value: float
    at_most: float
    controls: tuple[Control, ...]
    details: Mapping[str, float] | None = None
    """Further figures for the JSON file."""

    @property
    def held(self) -> bool:
        """Whether the protection held and every control showed that the attack works."""
        return self.value <= self.at_most and all(control.bites for control in self.controls)

    def plain(self) -> dict[str, Any]:
        """Return the row as JSON values."""
        return {**asdict(self), "held": self.held}
