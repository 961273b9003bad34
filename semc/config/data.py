"""The study's `data:` section: what an input image and a label mean at every site."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from semc.config.section import Section


class DataConfig(Section):
    """Label ontology and image preparation, the same at every site of a study."""

    classes: tuple[str, ...] = Field(min_length=2)
    """Class names in the order of their study-wide ids; a site lacking one never shifts an index."""
    image_size: int = Field(default=128, ge=32, le=1024)
    """Side of the square network input, pixels."""
    image_mode: Literal["any", "grey", "rgb"] = "any"
    """Pixel modes accepted from files; grey is repeated to three channels."""
    clahe: bool = False
    """Contrast-limited adaptive histogram equalisation (clip 2.0, 8x8 tiles) before anything else."""
    augmentation: Literal["none", "paper", "reference"] = "paper"
    """Training-time augmentation: paper = rotation, horizontal / vertical flip, brightness."""
    normalisation: Literal["none", "weights"] = "weights"
    """none = pixels in [0, 1]; weights = mean and std the backbone's weights were trained with (0.5, 0.25 for none)."""

    @field_validator("classes")
    @classmethod
    def _unique(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(classes)) != len(classes):
            raise ValueError("class names must be unique")
        if any(not name or name != name.strip() for name in classes):
            raise ValueError("class names must not be empty or padded with spaces")
        return classes
