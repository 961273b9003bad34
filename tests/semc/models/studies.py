"""Small studies for the tests of the networks."""

from __future__ import annotations

from typing import Any

from semc.config import StudyConfig, parse_study

_STUDY = """
name: test
seed: 3
data: {classes: [FHP1, FHP2, LLP, RLP, LPV-S, HRP, NSP]}
model: {backbone: tiny}
training: {local_steps: 1}
federation: {sites: [a, b]}
"""


def make_study(preset: str = "robust", **overrides: Any) -> StudyConfig:
    """Return a seven-class study; overrides are dotted keys with `__` for the dot, e.g. model__experts=2."""
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    return parse_study(_STUDY, {"preset": preset, **keys})
