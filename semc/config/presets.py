"""Presets: the values the paper, the released code and this project give to every open choice.

`paper` follows the equations literally, alpha's collapse included. `reference` is bug-compatible with the released
code, for parity. `robust` is the default: each defect mended. A study's own keys override its preset's.
"""

from __future__ import annotations

from typing import Any, Literal

Preset = Literal["paper", "reference", "robust"]

PRESETS: dict[Preset, dict[str, dict[str, Any]]] = {
    "paper": {
        "data": {"augmentation": "paper", "clahe": False, "normalisation": "none"},
        "model": {
            "expert_init": "random",
            "ace_activation": "relu",
            "ace_stage_activation": False,
            "ace_out_activation": True,
            "ace_init": "framework",
            "samc_fuse": "concat",
            "samc_residual": False,
            "samc_shared": True,
            "samc_bn": "shared",
            "gate_input": "fused_mean",
            "gate_trained": True,
            "gate_temperature": 1.0,
            "gate_temperature_end": 1.0,
            "gate_eval": "softmax",
        },
        "objective": {
            "anchors": "first",
            "mc_loss": "supcon_selfcon",
            "selfcon_neighbours": 5,
            "selfcon_threshold": 0.8,
            "queue_init": "empty",
            "queue_on_update": "keep",
            "cross_entropy": "plain",
            "expert_ce_weight": 0.0,
            "importance_weight": 0.0,
            "alpha": "learned",
            "alpha_clamp": None,
            "alpha_shift": False,
        },
        "training": {
            "learning_rate": 1e-3,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "weight_decay_on": "all",
            "schedule": "cosine",
            "warmup_fraction": 0.0,
            "batch_size": 16,
        },
    },
    "reference": {
        "data": {"augmentation": "reference", "clahe": True, "normalisation": "none"},
        "model": {
            "expert_init": "random",
            "ace_activation": "leaky_relu",
            "ace_stage_activation": True,
            "ace_out_activation": False,
            "ace_init": "normal",
            "samc_fuse": "sum",
            "samc_residual": True,
            "samc_shared": True,
            "samc_bn": "shared",
            "gate_input": "deep_mean",
            "gate_trained": False,
            "gate_temperature": 1.0,
            "gate_temperature_end": 1.0,
            "gate_eval": "sampled_mean",
        },
        "objective": {
            "anchors": "all",
            "mc_loss": "gpaco",
            "queue_init": "reference",
            "queue_on_update": "keep",
            "cross_entropy": "inverse_frequency",
            "expert_ce_weight": 0.0,
            "importance_weight": 0.0,
            "alpha": "reference",
        },
        "training": {
            "learning_rate": 5e-3,
            "momentum": 0.9,
            "weight_decay": 5e-4,
            "weight_decay_on": "all",
            "schedule": "reference",
            "warmup_fraction": 0.0,
            "batch_size": 16,
        },
    },
    "robust": {
        "data": {"augmentation": "paper", "normalisation": "weights"},
        "model": {
            "ace_activation": "relu",
            "ace_stage_activation": False,
            "ace_out_activation": True,
            "ace_init": "framework",
            "samc_fuse": "sum",
            "samc_residual": True,
            "samc_shared": True,
            "samc_bn": "per_expert",
            "gate_input": "deep_mean",
            "gate_trained": True,
            "gate_temperature": 1.0,
            "gate_temperature_end": 0.5,
            "gate_eval": "softmax",
        },
        "objective": {
            "anchors": "all",
            "mc_loss": "supcon_selfcon",
            "selfcon_neighbours": 0,
            "queue_init": "empty",
            "queue_on_update": "clear",
            "cross_entropy": "logit_adjusted",
            "expert_ce_weight": 0.3,
            "importance_weight": 0.01,
            "alpha": "uncertainty",
        },
        "training": {
            "learning_rate": 1e-3,
            "momentum": 0.9,
            "weight_decay": 1e-4,
            "weight_decay_on": "weights",
            "schedule": "cosine",
            "warmup_fraction": 0.05,
            "batch_size": 16,
        },
    },
}


def with_preset(content: dict[str, Any]) -> dict[str, Any]:
    """Lay a study's own keys over its preset's values, section by section.

    Args:
        content: The parsed study YAML; `preset` defaults to "robust".

    Returns:
        A new mapping; unknown presets, and those that are no text, are left for validation to refuse.
    """
    name = content.get("preset", "robust")
    # Compared, not looked up: what a YAML holds here may be a list, which has no hash.
    preset = next((values for known, values in PRESETS.items() if known == name), {})
    merged = dict(content)
    for section, values in preset.items():
        own = content.get(section) or {}
        merged[section] = {**values, **own} if isinstance(own, dict) else own
    model = merged.get("model")
    if name == "robust" and isinstance(model, dict):
        has_weights = model.get("weights", "none") != "none"
        model.setdefault("expert_init", "pretrained" if has_weights else "random")
    return merged
