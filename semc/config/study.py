"""One study = one YAML = one digest: everything that decides the result, the same at every site."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from semc.config.data import DataConfig
from semc.config.federation import FederationConfig
from semc.config.model import ModelConfig
from semc.config.objective import ObjectiveConfig
from semc.config.presets import Preset, with_preset
from semc.config.pretraining import PretrainingConfig
from semc.config.privacy import PrivacyConfig
from semc.config.private_study import why_impossible, with_private_defaults
from semc.config.section import Section, parse_yaml, read_yaml, validate
from semc.config.training import TrainingConfig
from semc.exit_codes import ExitCode, SemcError
from semc.protocol import FLOWER_VERSION, PROTOCOL_VERSION


class StudyConfig(Section):
    """A complete, resolved study: the preset's values are already filled in."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")
    """Short name; appears in folder names and reports."""
    description: str = ""
    """One sentence for the report."""
    preset: Preset = "robust"
    """Where values not given here come from."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """The one seed: weights, order of images, augmentation, gate noise."""
    data: DataConfig
    model: ModelConfig
    objective: ObjectiveConfig
    training: TrainingConfig
    federation: FederationConfig
    privacy: PrivacyConfig = PrivacyConfig()
    pretraining: PretrainingConfig | None = None
    """Where given, the coordinator trains the initial weights on public or phantom images first."""

    @model_validator(mode="after")
    def _impossible_pairs(self) -> StudyConfig:
        if self.objective.name == "semc" and self.objective.mc and self.objective.queue:
            floor = self.training.batch_size
            if self.objective.queue_size < floor:
                raise ValueError(f"objective.queue_size is below the batch size {floor}")
        reason = why_impossible(self)
        if reason is not None:
            raise ValueError(reason)
        return self

    @property
    def cautions(self) -> tuple[str, ...]:
        """What whoever starts this study should be told; empty for most."""
        objective = self.objective
        if self.privacy.private and self.pretraining is None and self.model.weights == "none":
            return (
                "privacy.mode patient_dp with neither pretraining nor model.weights: a frozen trunk with random "
                "weights gives the heads little to learn from",
            )
        if (
            objective.name == "semc"
            and objective.mc
            and objective.alpha == "learned"
            and not (objective.alpha_clamp or objective.alpha_shift)
        ):
            return (
                "objective.alpha learned (preset paper) drifts to 1, which turns the contrastive loss off: that loss "
                "has a floor above the cross-entropy's; alpha uncertainty or fixed has not",
            )
        return ()

    def digest(self) -> str:
        """Return the SHA-256 (hex) of the canonical study, the protocol and the Flower version."""
        content = {
            "study": self.model_dump(mode="json"),
            "protocol": PROTOCOL_VERSION,
            "flower": FLOWER_VERSION,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def model_digest(self) -> str:
        """Return the SHA-256 (hex) of what fixes the network's shape: model section, classes, projection, alpha."""
        content = {
            "model": self.model.model_dump(mode="json"),
            "classes": list(self.data.classes),
            "objective": self.objective.name,
            "mc": self.objective.mc,
            "alpha": self.objective.alpha,
            "trainable": self.privacy.trainable if self.privacy.private else "all",
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def to_yaml(self) -> str:
        """Return the resolved study as YAML; :func:`parse_study` reads it back to the same digest."""
        import yaml

        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def packaged_studies() -> dict[str, str]:
    """Return the YAML texts of the studies shipped with the package, by name."""
    folder = resources.files("semc") / "studies"
    return {
        entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".yaml")
    }


def parse_study(text: str, overrides: dict[str, Any] | None = None) -> StudyConfig:
    """Build a study from YAML text.

    Args:
        text: The YAML.
        overrides: Dotted keys to values, laid over the YAML before the preset fills the rest.

    Raises:
        SemcError: CONFIG_INVALID with the wrong key and its fix.
    """
    return _build(parse_yaml(text, "study"), overrides)


def load_study(reference: str | Path, overrides: dict[str, Any] | None = None) -> StudyConfig:
    """Load a study by path, or by the name of a packaged study.

    Raises:
        SemcError: CONFIG_NOT_FOUND or CONFIG_INVALID.
    """
    path = Path(reference)
    if path.is_file():
        return _build(read_yaml(path, "study"), overrides)
    packaged = packaged_studies()
    if str(reference) in packaged:
        return parse_study(packaged[str(reference)], overrides)
    raise SemcError(
        ExitCode.CONFIG_NOT_FOUND,
        f"There is no study file or packaged study '{path.name}'.",
        f"give a path, or one of: {', '.join(packaged)}",
    )


def _build(content: dict[str, Any], overrides: dict[str, Any] | None) -> StudyConfig:
    for key, value in (overrides or {}).items():
        *parents, leaf = key.split(".")
        place = content
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise SemcError(
                    ExitCode.CONFIG_INVALID, f"'{key}' does not name a study key.", "use section.key=value"
                )
        place[leaf] = value
    return validate(StudyConfig, with_preset(with_private_defaults(content)), "study")
