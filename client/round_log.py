"""What a site's rounds were like, one JSON line each, beside its states; for the site itself, never sent.

A round trained again replaces its own line and all later ones, as its state does: the log tells what led to the
state there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from semc.exit_codes import ExitCode, SemcError
from semc.whole_file import write_whole

FILE_NAME: Final = "rounds.jsonl"


class RoundLine(BaseModel):
    """One round."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: int
    loss: float
    terms: dict[str, float]
    """Mean over the round's images of each part of the objective, e.g. `queue_drift_cosine`."""


def read_rounds(folder: Path) -> list[RoundLine]:
    """Return the rounds in order; none where there is no log. A line that is not whole ends the reading."""
    try:
        lines = (folder / FILE_NAME).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for line in lines:
        try:
            found.append(RoundLine.model_validate_json(line))
        except ValidationError:
            break
    return found


def record_round(folder: Path, number: int, loss: float, terms: Mapping[str, float]) -> None:
    """Write a round's line; lines of this and later rounds are replaced.

    Raises:
        SemcError: DISK.
    """
    entries = [entry for entry in read_rounds(folder) if entry.round < number]
    entries.append(RoundLine(round=number, loss=loss, terms=dict(terms)))
    try:
        write_whole(folder / FILE_NAME, "".join(f"{entry.model_dump_json()}\n" for entry in entries).encode())
    except OSError as error:
        raise SemcError(
            ExitCode.DISK,
            f"The site's log of rounds could not be written ({error.strerror}).",
            "free space or make the state directory writable",
        ) from error
