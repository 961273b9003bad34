"""What a phantom cohort is: its centres, patients, classes, and how far the centres' scanners lie apart."""

from __future__ import annotations

import re
from typing import Final

from pydantic import Field, field_validator

from semc.config.section import Section
from semc.datasets.phantom.anatomy import PLANES

DEFAULT_SEVERITY: Final = 0.4
RESERVED_CENTRE = "reserved"
"""Name of the centre whose style comes from a seed stream of its own."""


class PhantomConfig(Section):
    """A procedural ultrasound cohort; synthetic, for testing methods, never for clinical claims.

    Every image is a function of (seed, centre, patient, plane, frame) and the centre's style alone, so the
    order of generation and the number of processes never matter.
    """

    seed: int = Field(default=0, ge=0, lt=2**31)
    """The one seed; patients, styles, class priors and speckle draw from separate streams of it."""
    classes: tuple[str, ...] = Field(default=tuple(PLANES), min_length=2)
    """Planes to draw, any of head, abdomen, femur, four_chamber, liver, other."""
    centre_names: tuple[str, ...] = Field(default=("hospital_1", "hospital_2", "hospital_3"), min_length=1)
    """The centres, each with its own scanner style by place in this list."""
    patients_per_centre: int = Field(default=40, ge=1, le=9000)
    """Patients whose rows are marked `train` (a site cuts its validation patients from them)."""
    test_patients_per_centre: int = Field(default=20, ge=0, le=900)
    """Further patients of each centre whose rows are marked `test`."""
    frames_per_patient: int = Field(default=6, ge=1, le=64)
    """Frames of one patient: same anatomy, other probe position and speckle, so a split by frame leaks."""
    planes_per_patient: int = Field(default=2, ge=1, le=6)
    """Planes among which a patient's frames are divided."""
    image_size: int = Field(default=128, ge=32, le=512)
    """Height of the images, pixels; anatomy and speckle keep their proportions."""
    severity: float = Field(default=DEFAULT_SEVERITY, ge=0, le=1)
    """s: 0 = all centres share one scanner, 1 = unrelated scanners. Points of macro-F1 that a small ResNet trained
    on one centre's 195 images of 64 pixels loses at the others: 6 at 0.3, 15 at the default, 24 at 0.5 (RESULTS.md)."""
    class_prior: float | None = Field(default=4.0, gt=0)
    """Concentration of the symmetric Dirichlet each centre's class shares are drawn from; null = equal."""
    near_miss: float = Field(default=0.6, ge=0, le=1)
    """Share of `other` that looks like a standard plane without landmarks; the rest is plain structures."""
    overlay_leaks_class: bool = False
    """Burn in a marker that tells the class, reversed in the reserved centre: a shortcut trap."""
    reserved_centre: bool = False
    """Add a centre for a final figure on an unseen scanner; never tune on it."""

    @field_validator("classes")
    @classmethod
    def _known(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in classes if name not in PLANES]
        if unknown or len(set(classes)) != len(classes):
            raise ValueError(f"classes must be different names out of: {', '.join(PLANES)}")
        return classes

    @field_validator("centre_names")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names) or RESERVED_CENTRE in names:
            raise ValueError(f"centre names must be unique, and none '{RESERVED_CENTRE}'")
        if any(not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) for name in names):
            raise ValueError("centre names are made of a-z, 0-9, _ and -")
        return names

    def all_centres(self) -> tuple[str, ...]:
        """Return the centres in order; the reserved one, if any, is last."""
        return (*self.centre_names, RESERVED_CENTRE) if self.reserved_centre else self.centre_names
