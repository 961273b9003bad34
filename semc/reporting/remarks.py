"""Sentences for single tables and figures, of what an experiment knows and its answers do not show."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Remarks:
    """What a reader must know beside the place it concerns."""

    arms: tuple[str, ...] = ()
    """Under every table with an arm a row or a column."""
    left_out: tuple[str, ...] = ()
    """Under the table of left-out centres."""
    curves: str = ""
    """Above the curves, round by round."""
