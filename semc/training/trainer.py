"""One round of local training: batch -> objective -> gradient -> step -> queue, and the pull of FedProx.

A round is a function of the network's weights, the loaded state and the seeded generators alone, so a
replayed round gives the same weights bit for bit. The owner of the process seeds it and sets its threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from semc.config import StudyConfig
from semc.datasets import Batch
from semc.exit_codes import ExitCode, SemcError
from semc.models import SEMCNet
from semc.objectives import LossTerms, Objective
from semc.objectives.local_tensors import check_tensors, copy_tensors
from semc.parameter_exchange import batch_norm_names
from semc.seed import random_state, restore_random_state
from semc.training.mode import in_mode
from semc.training.optim import build_optimizer, learning_rate
from semc.training.precision import amp_dtype
from semc.training.round_point import PARTS, AfterStep, RoundPoint
from semc.training.train_result import RoundMeans, TrainResult

_MOMENTUM = "momentum."
_SCALER = "scaler."


class Trainer:
    """Trains one network with one objective; keeps the momentum between rounds.

    Args:
        study: Optimiser, schedule, precision and proximal term.
        network: Moved to `device`; its parameters must stay the same objects.
        objective: The losses and their local state.
        device: Where to compute.
    """

    def __init__(
        self, study: StudyConfig, network: nn.Module, objective: Objective, device: torch.device
    ) -> None:
        self._training = study.training
        self._proximal_mu = study.federation.proximal_mu
        self._network = network.to(device)
        self._objective = objective
        self._device = device
        self._amp_dtype = amp_dtype(study.training, device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._amp_dtype is torch.float16)
        self._optimizer = build_optimizer(network, study.training)
        self._trainable = {name: p for name, p in network.named_parameters() if p.requires_grad}

    def train(
        self,
        batches: Iterable[Batch],
        *,
        global_step: int,
        total_steps: int,
        point: RoundPoint | None = None,
        after_step: AfterStep | None = None,
    ) -> TrainResult:
        """Run one optimiser step per batch, starting from the network's present weights: those that came in.

        Args:
            batches: The round's batches, on any device; those after `point` where one is given.
            global_step: Steps of the study before this round; places schedule and gate temperature.
            total_steps: Steps of the whole study at this site.
            point: Where an earlier try of this very round was left; the network still has the incoming weights,
                because FedProx holds on to those.
            after_step: Offered the round's present point after every step.

        Returns:
            Means over the images of the round.

        Raises:
            SemcError: RUN_FAILED where the loss is no longer finite; the weights are then unusable.
                CHECKPOINT_INVALID where `point` does not fit; whoever gave it starts the round anew.
            ValueError: There is no batch, or the round reaches past `total_steps`.
        """
        started = time.perf_counter() - (0.0 if point is None else point.seconds)
        incoming = self._proximal_anchors()
        means = RoundMeans()
        if point is not None:
            self._go_on_from(point, means)
        steps_done = 0 if point is None else point.steps
        with in_mode(self._network, training=True):
            for step, batch in enumerate(batches, start=global_step + steps_done):
                rate = learning_rate(self._training, step, total_steps)
                losses = self._step(batch.to(self._device), rate, step / total_steps, incoming)
                loss = losses.total.item()
                if not math.isfinite(loss):
                    raise SemcError(
                        ExitCode.RUN_FAILED,
                        f"Training diverged: the loss of step {step} is not finite.",
                        "lower training.learning_rate or set training.gradient_clip",
                    )
                means.add(loss, losses, batch.images_BCHW.shape[0])
                if after_step is not None:
                    after_step(partial(self._point, step + 1 - global_step, started, means))
        self._optimizer.zero_grad(set_to_none=True)
        return means.result(time.perf_counter() - started)

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of the optimiser's state on the CPU; never leaves the site.

        Returns:
            `momentum.<parameter>` for every trainable parameter (none without momentum), and with float16 the
            loss scaler's scale and growth count.
        """
        state = {
            _MOMENTUM + name: self._optimizer.state[parameter]["momentum_buffer"].to("cpu", copy=True)
            for name, parameter in self._trainable.items()
            if self._training.momentum > 0
        }
        for name in ("scale", "_growth_tracker") if self._scaler.is_enabled() else ():
            state[_SCALER + name] = torch.tensor(float(self._scaler.state_dict()[name]))
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state_dict` returned.

        Raises:
            SemcError: CHECKPOINT_INVALID where the momentum belongs to another network.
        """
        momentum = {name: tensor for name, tensor in state.items() if name.startswith(_MOMENTUM)}
        own = {
            _MOMENTUM + name: self._optimizer.state[parameter]["momentum_buffer"]
            for name, parameter in self._trainable.items()
            if self._training.momentum > 0
        }
        fits = momentum.keys() == own.keys() and all(own[k].shape == t.shape for k, t in momentum.items())
        if not fits:
            raise SemcError(
                ExitCode.CHECKPOINT_INVALID,
                "The saved optimiser state belongs to another network.",
                "remove the site's saved state of this study and start it again",
            )
        for name, tensor in momentum.items():
            own[name].copy_(tensor)
        if self._scaler.is_enabled() and _SCALER + "scale" in state:
            scaler = self._scaler.state_dict()
            scaler["scale"] = float(state[_SCALER + "scale"])
            scaler["_growth_tracker"] = int(state[_SCALER + "_growth_tracker"])
            self._scaler.load_state_dict(scaler)

    def _point(self, steps: int, started: float, means: RoundMeans) -> RoundPoint:
        """Copy all that a step changes."""
        parts = {
            "network": copy_tensors(self._network.state_dict()),
            "objective": self._objective.round_state_dict(self._network),
            "optimiser": self.state_dict(),
            "means": means.state_dict(),
            "random": random_state(self._device),
        }
        tensors = {f"{part}/{name}": tensor for part in PARTS for name, tensor in parts[part].items()}
        return RoundPoint(steps, time.perf_counter() - started, tensors)

    def _go_on_from(self, point: RoundPoint, means: RoundMeans) -> None:
        """Put back what :meth:`_point` copied."""
        point.require("means", means.state_dict())
        point.require("random", random_state(self._device))
        network = point.part("network")
        check_tensors(network, self._network.state_dict())
        self._network.load_state_dict(network)
        self._objective.load_round_state_dict(point.part("objective"), self._network)
        self.load_state_dict(point.part("optimiser"))
        means.load_state_dict(point.part("means"))
        restore_random_state(point.part("random"), self._device)

    def _step(self, batch: Batch, rate: float, progress: float, incoming: Mapping[str, Tensor]) -> LossTerms:
        """Do one optimiser step; returns the losses before it."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        if isinstance(self._network, SEMCNet):
            self._network.set_progress(progress)
        with torch.autocast(self._device.type, self._amp_dtype, enabled=self._amp_dtype is not None):
            losses = self._objective.step(self._network, batch, progress)
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self._scaler.scale(losses.total))
        self._scaler.unscale_(self._optimizer)
        self._pull_towards(incoming)
        if self._training.gradient_clip is not None:
            nn.utils.clip_grad_norm_(list(self._trainable.values()), self._training.gradient_clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._objective.after_step(self._network)
        return losses

    def _proximal_anchors(self) -> dict[str, Tensor]:
        """Copy the received weights that FedProx holds on to: shared, trainable, not of a batch norm."""
        if self._proximal_mu == 0:
            return {}
        batch_norm = batch_norm_names(self._network, "average")
        return {name: p.detach().clone() for name, p in self._trainable.items() if name not in batch_norm}

    def _pull_towards(self, incoming: Mapping[str, Tensor]) -> None:
        """Add the gradient of FedProx's mu/2 ||w - w_received||^2; needs no graph and no temporaries."""
        for name, anchor in incoming.items():
            parameter = self._trainable[name]
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.add_(parameter.detach(), alpha=self._proximal_mu)
            parameter.grad.add_(anchor, alpha=-self._proximal_mu)
