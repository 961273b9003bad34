"""Sentences that captions of several tables share, and how a caption is put together."""

from __future__ import annotations

from typing import Final

from semc.reporting.text_table import DOWN, UP

BRACKETS: Final = "In brackets: 95 % interval over patients."
INTERVAL: Final = f"{BRACKETS} {UP} and {DOWN} mark a difference whose interval leaves out zero."


def caption(*sentences: str) -> str:
    """Join sentences; those that have nothing to say are empty."""
    return " ".join(filter(None, sentences))
