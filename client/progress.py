"""What the training process tells its supervisor while it works; nothing of it leaves the site."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final, Literal

Phase = Literal[
    "ready",
    "idle",
    "pulling",
    "working",
    "pushing",
    "lost",
    "loading",
    "waiting",
    "evaluating",
    "training",
    "refused",
]

_MARK: Final = "\x1e"
"""Record separator: marks a progress line among log lines."""


@dataclass(frozen=True)
class Progress:
    """One step of one message."""

    phase: Phase
    round_number: int = 0
    """0 where no round is concerned."""
    done: int = 0
    total: int = 0
    loss: float | None = None
    """Mean training loss, once a round is trained."""
    text: str = ""
    """The line an operator reads where a message was refused."""

    def to_line(self) -> str:
        """Return the one line that carries this through a pipe."""
        return f"{_MARK}{json.dumps(asdict(self))}\n"


Report = Callable[[Progress], None]


def silent(_progress: Progress) -> None:
    """Tell nobody."""


def from_line(line: str) -> Progress | None:
    """Read a line of the training process; None where it is a log line."""
    if not line.startswith(_MARK):
        return None
    try:
        return Progress(**json.loads(line.removeprefix(_MARK)))
    except (ValueError, TypeError):
        return None
