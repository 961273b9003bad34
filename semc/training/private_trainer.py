"""One round of private training: draw patients, one clipped gradient each, noise, step.

The network runs in evaluation mode: batch norms use their public statistics and the gate draws no noise, so that a
patient's gradient is a function of that patient's frames and the weights alone. Who was drawn, which frames
and what noise are secret and differ from run to run; a replayed round gives other weights, and costs again.
Nothing about the training images is returned but the number of steps, which the plan fixes. A drawn patient whose
images do not decode counts as zero, as one with a gradient that is not finite does: no patient ends a round.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from semc.config import StudyConfig
from semc.datasets.patient_pool import PatientPool
from semc.datasets.sample import ManifestRow
from semc.exit_codes import ExitCode, SemcError
from semc.models import SEMCNet
from semc.objectives.semc_dp import SemcDpObjective
from semc.privacy.patient_dp import PatientDPOptimizer, private_step
from semc.privacy.secret_noise import SecretRng
from semc.training.feature_memory import FeatureMemory
from semc.training.mode import in_mode
from semc.training.optim import build_optimizer, learning_rate

log = logging.getLogger(__name__)

_MOMENTUM = "momentum."

Report = Callable[[int, int], None]
"""Called after each step with the steps done and the steps of the round; may raise to end the round."""


class PrivateTrainer:
    """Trains what the study names under patient-level DP; keeps the momentum between rounds.

    Args:
        study: With `privacy.mode: patient_dp`.
        network: From `build_model(study)`, moved to `device`; its parameters must stay the same objects.
        objective: The patient's loss.
        device: Where to compute.
        public_patients: The site's public lower bound on its patients; fixes the divisor, never the private count.
        secret: Source of draws and noise; None = a fresh one per :meth:`train`. Given in tests alone.
        features: Memory of the frozen trunk's features, where several trainers of one network share it.
    """

    def __init__(
        self,
        study: StudyConfig,
        network: SEMCNet,
        objective: SemcDpObjective,
        device: torch.device,
        *,
        public_patients: int,
        secret: SecretRng | None = None,
        features: FeatureMemory | None = None,
    ) -> None:
        if not study.privacy.private or study.training.local_steps is None:
            raise ValueError("private training needs a study with privacy.mode patient_dp")
        assert study.privacy.noise_multiplier is not None
        self._training, self._privacy = study.training, study.privacy
        self._steps = study.training.local_steps
        self._sigma = study.privacy.noise_multiplier
        self._public_patients = public_patients
        self._network = network.to(device)
        self._objective = objective
        self._device = device
        self._secret = secret
        self._told: set[str] = set()
        self._optimizer = build_optimizer(network, study.training)
        self._trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self._features: FeatureMemory | None = None
        if study.privacy.trainable == "heads" and study.data.augmentation == "none":
            # Not `features or`: a memory that is still empty has length 0.
            self._features = FeatureMemory(network) if features is None else features

    def train(
        self, pool: PatientPool, *, global_step: int, total_steps: int, report: Report | None = None
    ) -> int:
        """Run the round's steps from the network's present weights.

        Args:
            pool: The site's patients.
            global_step: Steps of the study before this round; places the learning rate.
            total_steps: Steps of the whole study at this site.
            report: Progress.

        Returns:
            The steps done: always the study's `local_steps`.

        Raises:
            ValueError: The round reaches past `total_steps`; nothing is then trained.
        """
        if not 0 <= global_step <= total_steps - self._steps:
            raise ValueError("the round reaches past the study's steps")
        secret = SecretRng() if self._secret is None else self._secret
        optimizer = PatientDPOptimizer(
            self._optimizer,
            noise_multiplier=self._sigma,
            max_grad_norm=self._privacy.max_grad_norm,
            expected_patients=self._privacy.patient_fraction * self._public_patients,
            secret=secret,
        )
        if self._features is not None:
            self._features.check_current()
        with in_mode(self._network, training=False):
            for done in range(1, self._steps + 1):
                rate = learning_rate(self._training, global_step + done - 1, total_steps)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                drawn = pool.draw(self._privacy.patient_fraction, secret.uniform)
                # Each with a generator of its own: what is chosen of one patient is no matter of another's frames.
                losses = [partial(self._loss, pool, patient, secret.generator()) for patient in drawn]
                private_step(optimizer, losses)
                if report is not None:
                    report(done, self._steps)
        return self._steps

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of the momentum on the CPU, `momentum.<parameter>`; a function of noised sums alone."""
        return {
            _MOMENTUM + name: self._optimizer.state[parameter]["momentum_buffer"].to("cpu", copy=True)
            for name, parameter in self._trainable.items()
            if self._training.momentum > 0
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state_dict` returned.

        Raises:
            SemcError: CHECKPOINT_INVALID where the momentum belongs to another network.
        """
        own = {
            _MOMENTUM + name: self._optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in self._trainable.items()
            if self._training.momentum > 0
        }
        if state.keys() != own.keys() or any(own[name].shape != state[name].shape for name in own):
            raise SemcError(
                ExitCode.CHECKPOINT_INVALID,
                "The saved optimiser state belongs to another network.",
                "remove the site's saved state of this study and start it again",
            )
        for name, tensor in state.items():
            own[name].copy_(tensor)

    def _loss(self, pool: PatientPool, patient: int, rng: np.random.Generator) -> Tensor | None:
        """Return one patient's loss, None where an image does not decode; only the chosen frames are loaded."""
        try:
            return self._loss_of(pool, pool.frames(patient, rng), rng)
        except SemcError as error:
            # Once a row, not once a draw: how often a patient was drawn is nobody's business.
            if error.problem not in self._told:
                self._told.add(error.problem)
                log.warning("A patient counts as zero in training: %s", error.problem)
            return None

    def _loss_of(self, pool: PatientPool, rows: Sequence[ManifestRow], rng: np.random.Generator) -> Tensor:
        if self._features is not None:
            labels_B = torch.tensor([row.label for row in rows], device=self._device)
            features = self._features.of(rows, lambda missing: pool.load(missing, rng).to(self._device))
            return self._objective.loss(self._network.classify(features), labels_B)
        batch = pool.load(rows, rng).to(self._device)
        return self._objective.loss(self._network(batch.images_BCHW), batch.labels_B)
