"""What a study's plan promises its patients, computed before its first round."""

from __future__ import annotations

import math

from semc.config import StudyConfig
from semc.reporting.privacy_statement import PrivacyStatement
from server.global_model import GlobalModel, weights_sha256


def guarantee_of(study: StudyConfig, model: GlobalModel) -> PrivacyStatement | None:
    """Return the guarantee of a study, None in mode none.

    Args:
        study: Its plan: all its rounds.
        model: What every site starts from.
    """
    if not study.privacy.private:
        return None
    from semc.privacy.accounting import prv_epsilon
    from semc.privacy.limits import mechanism_of, plan_cost

    privacy, rounds = study.privacy, study.federation.rounds
    mechanism = mechanism_of(study)
    return PrivacyStatement(
        epsilon=plan_cost(study),
        epsilon_limit=privacy.epsilon,
        epsilon_prv=prv_epsilon([mechanism] * rounds, privacy.delta),
        delta=privacy.delta,
        noise_multiplier=mechanism.noise_multiplier,
        max_grad_norm=privacy.max_grad_norm,
        patient_fraction=mechanism.sampling_rate,
        steps=mechanism.steps * rounds,
        trainable=privacy.trainable,
        num_trained_values=sum(math.prod(shape) for shape in model.update_shapes.values()),
        initial_weights=_origin(study),
        initial_weights_sha256=weights_sha256(model.tensors, study.federation.wire_dtype),
    )


def _origin(study: StudyConfig) -> str:
    """Say where the weights before the first round come from."""
    begin = (
        "random weights from the study's seed"
        if study.model.weights == "none"
        else f"published weights ({study.model.weights})"
    )
    if study.pretraining is None:
        return begin
    images = "phantom images" if study.pretraining.source == "phantom" else "public images"
    return f"{begin}, then trained by the coordinator on {images}, without privacy, which those do not need"
