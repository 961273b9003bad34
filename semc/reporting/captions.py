"""Sentences that several tables and answers share, and how a caption is put together."""

from __future__ import annotations

from typing import Final

from semc.reporting.bootstrap import PatientBootstrap
from semc.reporting.text_table import DOWN, UP

BRACKETS: Final = "In brackets: 95 % interval over patients."
INTERVAL: Final = f"{BRACKETS} {UP} and {DOWN} mark a difference whose interval leaves out zero."


def count_of_centres(groups: PatientBootstrap, what: str = "centre") -> str:
    """Say over how many centres a mean is, and of how many where some are in none."""
    counted, known = len(groups.sites), len(groups.all_sites)
    share = str(counted) if counted == known else f"{counted} of {known}"
    return f"{share} {what}{'s' * (known != 1)}"


def caption(*sentences: str) -> str:
    """Join sentences; those that have nothing to say are empty."""
    return " ".join(filter(None, sentences))
