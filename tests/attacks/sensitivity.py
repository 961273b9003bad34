"""How far one patient moves the clipped sum of a step, in units of the clip norm C: the accountant assumes at most 1.

Everything goes through the real :func:`semc.privacy.patient_dp.private_step` without noise, with a given draw. What is
probed is the caller's duty: that no patient's loss depends on another patient. A loss is given as a function of
all patients that were drawn, so that a mechanism which couples them can be put through the same harness.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from semc.datasets import Batch
from semc.objectives import Objective
from semc.privacy.patient_dp import PatientDPOptimizer, private_step
from semc.privacy.secret_noise import SecretRng


@dataclass(frozen=True)
class Record:
    """One patient: all frames and labels."""

    images_BCHW: Tensor
    labels_B: Tensor

    def batch(self, first_id: int = 0) -> Batch:
        """Return the frames as a batch whose image ids start at a number."""
        count = len(self.labels_B)
        ids_B = torch.arange(first_id, first_id + count)
        return Batch(self.images_BCHW, self.labels_B, ids_B, torch.zeros(count, dtype=torch.int64))


Losses = Callable[[Sequence[Record]], list[Callable[[], Tensor]]]
"""From the patients of a step to the loss of each, one function a patient."""


class _Recorder(torch.optim.Optimizer):
    """Keeps the gradient it is given instead of taking a step: no rounding of weights enters the figure."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__(parameters, {})
        self.seen = torch.empty(0)

    def step(self, closure: object = None) -> None:
        gradients = [p.grad.detach().flatten() for group in self.param_groups for p in group["params"]]
        self.seen = torch.cat(gradients).double()


def clipped_sum(network: nn.Module, losses: Losses, drawn: Sequence[Record], clip: float) -> Tensor:
    """Return the sum of clipped gradients of one real step over the trainable parameters, flat, float64."""
    recorder = _Recorder([p for p in network.parameters() if p.requires_grad])
    optimizer = PatientDPOptimizer(
        recorder, noise_multiplier=0.0, max_grad_norm=clip, expected_patients=1.0, secret=SecretRng()
    )
    private_step(optimizer, losses(drawn))
    return recorder.seen


def removal_shift(
    network: nn.Module, losses: Losses, drawn: Sequence[Record], removed: int, clip: float
) -> float:
    """Return by how many C the sum moves when one drawn patient is taken out."""
    rest = [record for number, record in enumerate(drawn) if number != removed]
    return _distance(network, losses, (drawn, rest), clip)


def removal_shifts(network: nn.Module, losses: Losses, drawn: Sequence[Record], clip: float) -> list[float]:
    """Return :func:`removal_shift` of every drawn patient, with the whole sum computed once."""
    whole = clipped_sum(network, losses, drawn, clip)
    shifts = []
    for removed in range(len(drawn)):
        rest = [record for number, record in enumerate(drawn) if number != removed]
        shifts.append((whole - clipped_sum(network, losses, rest, clip)).norm().item() / clip)
    return shifts


def replacement_shift(
    network: nn.Module, losses: Losses, drawn: Sequence[Record], replaced: int, other: Record, clip: float
) -> float:
    """Return by how many C the sum moves when one drawn patient becomes another."""
    changed = [other if number == replaced else record for number, record in enumerate(drawn)]
    return _distance(network, losses, (drawn, changed), clip)


def history_shift(
    network: nn.Module,
    objective: Callable[[], Objective],
    history: Sequence[Record],
    removed: int,
    drawn: Sequence[Record],
    clip: float,
) -> float:
    """Return by how many C the sum of a later step moves when a patient of an earlier one is taken out.

    The patient is not drawn in the later step: the accountant assumes 0.

    Args:
        network: Unchanged throughout.
        objective: Makes an objective with empty local state.
        history: Patients whose steps came before, one by one.
        removed: Which of them is taken out.
        drawn: Patients of the later step.
        clip: C.
    """

    def later_sum(earlier: Sequence[tuple[int, Record]]) -> Tensor:
        made = objective()
        for number, record in earlier:
            made.step(network, record.batch(1000 * number), 0.5)
            made.after_step(network)

        def losses(records: Sequence[Record]) -> list[Callable[[], Tensor]]:
            return [
                lambda i=i, record=record: made.step(network, record.batch(100_000 + 1000 * i), 0.5).total
                for i, record in enumerate(records)
            ]

        return clipped_sum(network, losses, drawn, clip)

    everyone = list(enumerate(history))
    rest = [entry for entry in everyone if entry[0] != removed]
    return (later_sum(everyone) - later_sum(rest)).norm().item() / clip


def optimised_record(
    network: nn.Module, losses: Losses, record: Record, *, steps: int, size: float = 0.3
) -> Record:
    """Return the patient with pixels driven by gradient ascent towards the longest gradient of the weights.

    Args:
        network: Through which the norm is differentiated twice.
        losses: The mechanism's.
        record: Where to start.
        steps: Ascent steps, each moving a pixel by `size` along the sign of its derivative.
        size: Of a step, in units of the network's input.
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    images = record.images_BCHW.clone()
    for _ in range(steps):
        images.requires_grad_(True)
        loss = losses([replace(record, images_BCHW=images)])[0]()
        gradients = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
        squared = torch.stack([g.square().sum() for g in gradients if g is not None]).sum()
        (ascent,) = torch.autograd.grad(squared, images)
        images = images.detach() + size * ascent.sign()
    return replace(record, images_BCHW=images)


def _distance(
    network: nn.Module, losses: Losses, draws: tuple[Sequence[Record], Sequence[Record]], clip: float
) -> float:
    first, second = (clipped_sum(network, losses, drawn, clip) for drawn in draws)
    return (first - second).norm().item() / clip
