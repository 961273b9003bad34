"""A white-box attack on the private trainer: was the canary patient in the round or not?

The attacker knows the initial weights, every other patient, the noise multiplier and the sampling rate, and sees the
trained weights after every round; what it does not know is who was drawn, and the noise. The canary has a wrong
label and a gradient far above the clip norm; the learning rate is so small that gradients stay what they are, which
is the worst case. Each round's movement is projected on the part of the canary's clipped gradient that is orthogonal
to the others', and the projections enter the exact likelihood ratio of the two worlds, so by Neyman and Pearson no
attacker of these projections does better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from scipy.stats import binom
from torch import Tensor

from semc.config import StudyConfig
from semc.datasets.patient_pool import PatientPool
from semc.objectives.semc_dp import SemcDpObjective
from semc.privacy.secret_noise import SecretRng
from tests.attacks.private_site import (
    Patient,
    network_of,
    phantom_patients,
    pool_of,
    set_trained_weights,
    trained_weights,
    trainer_of,
)

_OTHERS = 3
_PUBLIC_PATIENTS = 4
_OTHERS_LABEL, _CANARY_LABEL = 0, 5


@dataclass(frozen=True)
class Game:
    """The two worlds: the same patients without the canary, and with it."""

    study: StudyConfig
    without: PatientPool
    with_canary: PatientPool
    direction: Tensor
    """Unit vector in the space of the trained weights."""
    signal: float
    """How far one draw of the canary moves the clipped sum along the direction, in units of C."""


def build_game(study: StudyConfig, frames: int, *, image_level: bool = False) -> Game:
    """Return the game for a study.

    Args:
        study: Noise, sampling, local steps and rounds.
        frames: Frames of the canary patient.
        image_level: The broken twin: each of the canary's frames is clipped by itself, at the same claim.
    """
    made = phantom_patients(_OTHERS + 1, frames, seed=6)
    one_picture = made[-1].images[:1] * frames  # frames that pull the same way
    others = [Patient(number, made[number].images[:1], (_OTHERS_LABEL,)) for number in range(_OTHERS)]
    canary = Patient(_OTHERS, one_picture, (_CANARY_LABEL,) * frames)
    records = pool_of(study, [*others, canary], image_level=image_level)
    gradients = _clipped_gradients(study, records)
    basis, _ = torch.linalg.qr(torch.stack(gradients[:_OTHERS], dim=1))
    pull = torch.stack(gradients[_OTHERS:]).sum(dim=0)
    direction = pull - basis @ (basis.T @ pull)
    direction = direction / direction.norm()
    return Game(
        study,
        without=pool_of(study, others, image_level=image_level),
        with_canary=records,
        direction=direction,
        signal=float(gradients[-1] @ direction) / study.privacy.max_grad_norm,
    )


def play(game: Game, trials: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Train so many times in each world and return the attacker's scores (in, out).

    Every trial is one call per round of the real :class:`semc.training.private_trainer.PrivateTrainer`.
    """
    study = game.study
    network = network_of(study)
    start = trained_weights(network)
    trainer = trainer_of(study, network, public_patients=_PUBLIC_PATIENTS)
    rounds, steps = study.federation.rounds, study.training.local_steps
    assert steps is not None
    scale = study.privacy.patient_fraction * _PUBLIC_PATIENTS / study.training.learning_rate
    scores = []
    for pool in (game.with_canary, game.without):
        seen_TR = np.empty((trials, rounds))
        for trial in range(trials):
            set_trained_weights(network, start)
            before = start
            for number in range(rounds):
                trainer.train(pool, global_step=number * steps, total_steps=rounds * steps)
                after = trained_weights(network)
                seen_TR[trial, number] = float((before - after) @ game.direction) * scale
                before = after
        scores.append(_log_likelihood_ratio(seen_TR / study.privacy.max_grad_norm, game, steps))
    return scores[0], scores[1]


def play_with_known_noise(game: Game, trials: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Do the same where noise and draws come from a stream that follows from the study's seed: the broken twin.

    The attacker replays the round in both worlds with the same stream and takes the nearer one.
    """
    network, stream = network_of(game.study), _StreamOfSeed()
    start = trained_weights(network)
    secret = SecretRng(stream)
    trainer = trainer_of(game.study, network, public_patients=_PUBLIC_PATIENTS, secret=secret)

    def _trained(pool: PatientPool, trial: int) -> Tensor:
        set_trained_weights(network, start)
        stream.restart(game.study.seed + trial)
        trainer.train(pool, global_step=0, total_steps=game.study.training.local_steps or 0)
        return trained_weights(network)

    scores_in, scores_out = np.empty(trials), np.empty(trials)
    for trial in range(trials):
        replay_in, replay_out = _trained(game.with_canary, trial), _trained(game.without, trial)
        for scores, pool in ((scores_in, game.with_canary), (scores_out, game.without)):
            released = _trained(pool, trial)
            scores[trial] = float((released - replay_out).norm() - (released - replay_in).norm())
    return scores_in, scores_out


class _StreamOfSeed:
    """A key stream that anybody with the seed computes."""

    def __init__(self) -> None:
        self.restart(0)

    def restart(self, seed: int) -> None:
        """Begin the stream of a seed."""
        self._rng = np.random.default_rng(seed)

    def read(self, num_bytes: int) -> bytes:
        """Return the stream's next bytes."""
        return self._rng.bytes(num_bytes)


def _clipped_gradients(study: StudyConfig, pool: PatientPool) -> Sequence[Tensor]:
    """Return every record's gradient at the initial weights, clipped to C: what the attacker computes by itself."""
    network = network_of(study).eval()
    objective = SemcDpObjective(study)
    parameters = [p for p in network.parameters() if p.requires_grad]
    found = []
    for patient in range(pool.num_patients):
        rng = np.random.default_rng(0)
        batch = pool.load(pool.frames(patient, rng), rng)
        loss = objective.loss(network(batch.images_BCHW), batch.labels_B)
        gradients = torch.autograd.grad(loss, parameters)
        vector = torch.cat([gradient.flatten() for gradient in gradients])
        norm, most = float(vector.norm()), study.privacy.max_grad_norm
        assert norm > 2 * most, "the worst case is a gradient far above the clip norm"
        found.append(vector * (most / norm))
    return found


def _log_likelihood_ratio(seen_TR: NDArray[np.float64], game: Game, steps: int) -> NDArray[np.float64]:
    """Return the log-likelihood ratio of every trial.

    In `steps` steps the canary is drawn j times with the binomial's chance, each moves the projection by `signal`,
    and noise has variance steps x sigma^2.
    """
    variance = steps * (game.study.privacy.noise_multiplier or 0.0) ** 2
    draws_J = np.arange(steps + 1)
    chances_J = binom.logpmf(draws_J, steps, game.study.privacy.patient_fraction)
    shifts_J = draws_J * game.signal
    exponents_TRJ = (seen_TR[:, :, None] * shifts_J - shifts_J**2 / 2) / variance
    total = logsumexp(exponents_TRJ + chances_J, axis=2).sum(axis=1)
    assert all(math.isfinite(score) for score in total)
    return np.asarray(total)
