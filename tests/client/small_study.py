"""The smallest study a test can train, and a phantom hospital for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from semc.datasets.phantom import PhantomConfig, write_phantom

STUDY_TEXT = """
name: small
preset: robust
seed: 3
data: {classes: [head, abdomen, femur], image_size: 32}
model: {backbone: tiny, experts: 2, samc_expansion: 1, embedding_dim: 8}
objective: {queue_size: 64}
training: {batch_size: 4, local_steps: 2, learning_rate: 0.01}
federation: {sites: [north, south], rounds: 2}
"""


def write_site(
    folder: Path, name: str = "north", *, patients: int = 6, test_patients: int = 3, **changes: Any
) -> Path:
    """Write a phantom hospital with its site file and return that file."""
    config = PhantomConfig(
        seed=5,
        classes=("head", "abdomen", "femur"),
        centre_names=(name,),
        patients_per_centre=patients,
        test_patients_per_centre=test_patients,
        frames_per_patient=3,
        image_size=32,
    )
    write_phantom(config, folder / "images")
    site = {"site": name, "data": {"root": "images"}, "device": "cpu", **changes}
    (folder / "site.yaml").write_text(yaml.safe_dump(site), encoding="utf-8")
    return folder / "site.yaml"
