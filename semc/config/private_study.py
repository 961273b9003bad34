"""What a study with patient-level privacy cannot be: each impossible pair with its reason.

The guarantee needs the sum of per-patient gradients, each a function of that patient alone, clipped and noised.
Whatever couples patients, or carries numbers about them past the noise, is refused when the study is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from semc.config.study import StudyConfig

PRIVATE_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "data": {"augmentation": "none"},
    "objective": {
        "name": "semc_dp",
        "queue": False,
        "cross_entropy": "plain",
        "expert_ce_weight": 1.0,
        "importance_weight": 0.0,
        "alpha": "fixed",
    },
    "training": {"amp": "off", "warmup_fraction": 0.0},
    "federation": {"bn": "frozen", "weight": "uniform", "evaluate_every": 10_000},
}
"""Laid under the study's own keys, over its preset's, where `privacy.mode` is patient_dp."""


def with_private_defaults(content: dict[str, Any]) -> dict[str, Any]:
    """Return a study's content with what patient_dp needs, where the study asks for that mode.

    Args:
        content: The parsed study YAML, before its preset is laid under it.
    """
    privacy = content.get("privacy")
    if not isinstance(privacy, dict) or privacy.get("mode") != "patient_dp":
        return content
    defaults = {section: dict(values) for section, values in PRIVATE_DEFAULTS.items()}
    trainable = privacy.get("trainable", "heads")
    defaults["objective"]["mc"] = trainable != "heads"
    if trainable == "adapters":
        defaults["model"] = {"adapter_width": 16}
    merged = dict(content)
    for section, values in defaults.items():
        own = content.get(section) or {}
        merged[section] = {**values, **own} if isinstance(own, dict) else own
    return merged


def why_impossible(study: StudyConfig) -> str | None:
    """Return why a study cannot be trained as it says, or None; about privacy alone."""
    private = study.privacy.private
    if not private:
        if study.objective.name == "semc_dp":
            return "objective.name semc_dp is the objective of privacy.mode patient_dp"
        if study.federation.bn == "frozen":
            return "federation.bn frozen belongs to privacy.mode patient_dp"
        if study.model.adapter_width:
            return "model.adapter_width belongs to privacy.mode patient_dp"
        return None
    return next((f"privacy.mode patient_dp: {reason}" for found, reason in _refusals(study) if found), None)


def _refusals(study: StudyConfig) -> list[tuple[bool, str]]:
    """Return (does it apply, why it is refused), the most fundamental first."""
    objective, federation, training, model = study.objective, study.federation, study.training, study.model
    trainable = study.privacy.trainable
    has_public_trunk = study.pretraining is not None or model.weights != "none"
    return [
        (
            objective.queue,
            "objective.queue must be off: keys of patients who are not in the step would enter its gradients, and "
            "detaching stops gradients, not information",
        ),
        (
            objective.name != "semc_dp",
            f"objective.name {objective.name} couples the patients of a batch (in-batch contrast, batch statistics): "
            "use semc_dp",
        ),
        (
            federation.bn != "frozen",
            f"federation.bn {federation.bn} lets batch-norm statistics follow the site's images: use frozen "
            "(public statistics), or model.norm group",
        ),
        (
            objective.cross_entropy != "plain",
            f"objective.cross_entropy {objective.cross_entropy} uses the site's private class counts: use plain",
        ),
        (
            objective.alpha != "fixed",
            f"objective.alpha {objective.alpha} weighs losses by those of other images: semc_dp has none, use fixed",
        ),
        (
            objective.importance_weight > 0,
            "objective.importance_weight must be 0: it is a statistic of the batch",
        ),
        (
            objective.mc and trainable == "heads",
            "objective.mc (the contrast) with trainable heads: nothing it could move is trained, so it would only use "
            "up the clip norm; set mc: false or train heads+projection, adapters or all",
        ),
        (
            objective.mc is False and trainable == "heads+projection",
            "trainable heads+projection with objective.mc off: no projection is built",
        ),
        (
            (model.adapter_width > 0) != (trainable == "adapters"),
            "model.adapter_width > 0 and privacy.trainable adapters need each other",
        ),
        (
            trainable == "all" and model.norm == "batch" and not has_public_trunk,
            "trainable all with batch norm needs public statistics: give pretraining or model.weights, or model.norm "
            "group",
        ),
        (
            not model.gate_trained,
            "model.gate_trained false is the released code's defect: gate is a part of the heads",
        ),
        (
            training.local_steps is None,
            "training.local_epochs would make the number of steps a function of the private number of images: use "
            "local_steps",
        ),
        (
            training.gradient_clip is not None,
            "training.gradient_clip clips a batch; patients are clipped one by one to privacy.max_grad_norm",
        ),
        (training.amp != "off", "training.amp must be off: clipping and noise are computed in float32"),
        (
            federation.algorithm == "fedprox",
            "federation.algorithm fedprox is not offered: clipped, noised steps already stay close",
        ),
        (
            federation.weight != "uniform",
            f"federation.weight {federation.weight} needs exact image counts, which are never sent: use uniform",
        ),
        (
            federation.evaluate_every < federation.rounds,
            "federation.evaluate_every below rounds asks about the same evaluation patients again and again: only the "
            "last weights are evaluated, under the small-cell rules",
        ),
    ]
