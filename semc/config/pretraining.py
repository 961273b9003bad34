"""The study's `pretraining:` section: a trunk trained without privacy on data that need none."""

from __future__ import annotations

from typing import Final

from pydantic import Field, field_validator

from semc.config.model import is_file_name
from semc.config.section import Section

PHANTOM: Final = "phantom"


class PretrainingConfig(Section):
    """Centralised training of the initial weights at the coordinator, before the first round."""

    source: str = PHANTOM
    """phantom = procedural images, drawn where needed; or the bare name of a folder of public images (manifest.csv with
    file, label, group) in the folder that the coordinator's SEMC_PUBLIC_DATA names."""
    centres: int = Field(default=4, ge=1, le=32)
    """Phantom centres, each with a scanner of its own; none is a hospital of the study."""
    patients: int = Field(default=60, ge=1, le=9000)
    """Phantom patients of each centre."""
    frames_per_patient: int = Field(default=6, ge=1, le=64)
    """Frames of each phantom patient."""
    severity: float = Field(default=0.4, ge=0, le=1)
    """How far the phantom centres' scanners lie apart."""
    steps: int = Field(default=300, ge=1, le=1_000_000)
    """Optimiser steps."""
    batch_size: int = Field(default=16, ge=2, le=1024)
    """Images per step."""
    learning_rate: float = Field(default=0.02, gt=0, le=10)
    """Peak learning rate; warm-up and cosine."""

    @field_validator("source")
    @classmethod
    def _no_path(cls, source: str) -> str:
        if not is_file_name(source):
            raise ValueError("phantom or a bare folder name (letters, digits, '.', '_', '-'), no path")
        return source
