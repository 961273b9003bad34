"""Was this patient in the training set? Loss attack, its mean over the patient's frames, and LiRA with few shadows.

The attacker holds the trained heads and the public trunk, and has candidate patients of whom half were trained on. For
LiRA (Carlini et al. 2022) it has models of its own on other halves: how confident they are of a patient with and
without it gives two normal distributions, whose likelihood ratio at the attacked model is the score. Every model is
attacked in turn with the others as shadows. The target is the whole patient, as the guarantee's unit is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from torch import Tensor

from semc.config import StudyConfig
from semc.datasets.transforms import normalisation_of, to_tensor
from semc.models import PooledFeatures, SEMCNet
from semc.objectives.semc_dp import SemcDpObjective
from tests.attacks.membership_scores import area_under_curve, true_positive_rate_at
from tests.attacks.private_site import (
    Patient,
    network_of,
    pool_of,
    set_trained_weights,
    trained_weights,
    trainer_of,
)

_OVERFIT_STEPS, _OVERFIT_RATE = 150, 0.03
_LOW_FALSE_POSITIVE_RATE = 0.01


@dataclass(frozen=True)
class Candidates:
    """Patients of equally many frames, half of whom a model was trained on, and what the public trunk sees of them."""

    patients: tuple[Patient, ...]
    features: PooledFeatures
    """Of all frames, patient by patient."""
    labels_F: Tensor

    @property
    def frames_each(self) -> int:
        """Frames of each patient."""
        return len(self.patients[0].images)


@dataclass(frozen=True)
class Found:
    """How well one attack told members from strangers, over all attacked models."""

    area: float
    true_positives_at_one_percent: float


def public_network(study: StudyConfig, patients: list[Patient], steps: int) -> SEMCNet:
    """Return the study's network with a trunk trained on public patients, as the coordinator's pretraining does."""
    network = network_of(study)
    trainable = [parameter.requires_grad for parameter in network.parameters()]
    images_BCHW, labels_B = _tensors(study, patients)
    objective, rng = SemcDpObjective(study), np.random.default_rng(4)
    network.requires_grad_(True).train()
    torch.manual_seed(4)  # the gate's noise
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(steps):
        chosen = torch.from_numpy(rng.choice(len(labels_B), 16, replace=False))
        optimizer.zero_grad()
        objective.loss(network(images_BCHW[chosen]), labels_B[chosen]).backward()
        optimizer.step()
    for parameter, trains in zip(network.parameters(), trainable, strict=True):
        parameter.requires_grad_(trains)
    return network.eval()


def candidates_of(study: StudyConfig, network: SEMCNet, patients: list[Patient]) -> Candidates:
    """Return the candidates with their features under the public trunk."""
    images_BCHW, labels_B = _tensors(study, patients)
    with torch.no_grad():
        features = network.eval().pooled(images_BCHW)
    return Candidates(tuple(patients), features, labels_B)


def halves(num_models: int, num_patients: int, seed: int) -> NDArray[np.bool_]:
    """Return who is a member of which model, [M, P]; each patient is one of half of the models."""
    rng = np.random.default_rng(seed)
    columns = [rng.permutation(np.arange(num_models) < num_models // 2) for _ in range(num_patients)]
    return np.stack(columns, axis=1)


def train_privately(
    study: StudyConfig, network: SEMCNet, candidates: Candidates, members_MP: NDArray[np.bool_]
) -> list[Tensor]:
    """Train a model per row with the real private trainer and return the released heads."""
    start = trained_weights(network)
    public_patients = int(members_MP.sum(axis=1).min())
    trainer = trainer_of(study, network, public_patients=public_patients)
    steps, released = study.training.local_steps, []
    assert steps is not None
    for members_P in members_MP:
        set_trained_weights(network, start)
        mine = [patient for patient, is_in in zip(candidates.patients, members_P, strict=True) if is_in]
        trainer.train(pool_of(study, mine), global_step=0, total_steps=steps)
        released.append(trained_weights(network))
    set_trained_weights(network, start)
    return released


def train_until_overfit(
    study: StudyConfig, network: SEMCNet, candidates: Candidates, members_MP: NDArray[np.bool_]
) -> list[Tensor]:
    """Train a model per row on the same loss without any protection, until the members are known by heart."""
    start, objective, released = trained_weights(network), SemcDpObjective(study), []
    parameters = [p for p in network.parameters() if p.requires_grad]
    for members_P in members_MP:
        set_trained_weights(network, start)
        mine_F = torch.from_numpy(np.repeat(members_P, candidates.frames_each))
        features = PooledFeatures(
            candidates.features.pooled_NBC[:, mine_F], candidates.features.gate_input_BC[mine_F]
        )
        optimizer = torch.optim.Adam(parameters, lr=_OVERFIT_RATE)
        for _ in range(_OVERFIT_STEPS):
            optimizer.zero_grad()
            objective.loss(network.classify(features), candidates.labels_F[mine_F]).backward()
            optimizer.step()
        released.append(trained_weights(network))
    set_trained_weights(network, start)
    return released


def attack(
    network: SEMCNet, candidates: Candidates, released: list[Tensor], members_MP: NDArray[np.bool_]
) -> dict[str, Found]:
    """Attack every model with every attack; returns what each found."""
    confidence_MF = np.stack([_confidence(network, candidates, heads) for heads in released])
    frames = candidates.frames_each
    confidence_MP = confidence_MF.reshape(len(released), -1, frames).mean(axis=2)
    loss_MF = -np.logaddexp(0, -confidence_MF)  # log p_y of the logit of p_y
    members_MF = np.repeat(members_MP, frames, axis=1)
    return {
        "loss": _found(loss_MF, members_MF),
        "patient mean": _found(loss_MF.reshape((*confidence_MP.shape, frames)).mean(axis=2), members_MP),
        "LiRA": _found(_likelihood_ratios(confidence_MP, members_MP), members_MP),
    }


def share_right(network: SEMCNet, candidates: Candidates, heads: Tensor, who_P: NDArray[np.bool_]) -> float:
    """Return the accuracy of released heads on the frames of some candidates."""
    set_trained_weights(network, heads)
    with torch.no_grad():
        right_F = network.classify(candidates.features).logits_BK.argmax(dim=1) == candidates.labels_F
    return float(right_F.numpy()[np.repeat(who_P, candidates.frames_each)].mean())


def _tensors(study: StudyConfig, patients: list[Patient]) -> tuple[Tensor, Tensor]:
    pixels = [image for patient in patients for image in patient.images]
    labels = [label for patient in patients for label in patient.labels]
    return to_tensor(pixels, normalisation_of(study.data, study.model.weights)), torch.tensor(labels)


def _confidence(network: SEMCNet, candidates: Candidates, heads: Tensor) -> NDArray[np.float64]:
    """Return log(p / (1 - p)) of the right class for every frame."""
    set_trained_weights(network, heads)
    with torch.no_grad():
        logits_FK = network.eval().classify(candidates.features).logits_BK.double()
    own_F = logits_FK.gather(1, candidates.labels_F[:, None])[:, 0]
    others_FK = logits_FK.scatter(1, candidates.labels_F[:, None], -torch.inf)
    return (own_F - others_FK.logsumexp(dim=1)).numpy()


def _likelihood_ratios(
    confidence_MP: NDArray[np.float64], members_MP: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return log N(c; in) - log N(c; out) for every model and patient, fitted on the other models.

    With so few shadows one standard deviation for all patients is better than one each (Carlini et al., figure 8).
    """
    scores_MP = np.empty_like(confidence_MP)
    for model, own_P in enumerate(confidence_MP):
        others_MP = np.delete(confidence_MP, model, axis=0)
        inside_MP = np.delete(members_MP, model, axis=0)
        logs = []
        for belongs_MP in (inside_MP, ~inside_MP):
            chosen_MP = np.where(belongs_MP, others_MP, np.nan)
            means_P = np.nanmean(chosen_MP, axis=0)
            spread = float(np.sqrt(np.nanmean((chosen_MP - means_P) ** 2)))
            logs.append(norm.logpdf(own_P, means_P, spread))
        scores_MP[model] = logs[0] - logs[1]
    return scores_MP


def _found(scores: NDArray[np.float64], members: NDArray[np.bool_]) -> Found:
    return Found(
        area_under_curve(scores[members], scores[~members]),
        true_positive_rate_at(_LOW_FALSE_POSITIVE_RATE, scores[members], scores[~members]),
    )
