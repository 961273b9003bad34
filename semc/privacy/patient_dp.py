"""Patient-level DP-SGD: one patient is one microbatch, clipped as a whole (Abadi et al. 2016, algorithm 1).

    g = 1/E ( sum over drawn patients i of g_i min(1, C / ||g_i||) + sigma C N(0, I) )

``g_i`` is the gradient of patient i's own loss, all frames together; E is the expected number of patients in a step,
a public constant. Patients are handed in one by one, so coupling inside a patient is free and one gradient is
in memory at a time; opacus' hooks, which would keep one per image, are not used.

The sum has sensitivity C for adding or removing a patient only if no ``g_i`` depends on another patient: no batch
statistics, no queue, no in-batch contrast. That is the caller's duty, and the sensitivity harness's to check.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import torch
from opacus.optimizers.optimizer import DPOptimizer, _check_processed_flag, _mark_as_processed
from torch import Tensor

from semc.privacy.secret_noise import SecretRng

_LEAST_CHUNK: Final = 256
_LARGEST_CHUNK: Final = 8192
_WEIGHTS_PER_NOISE: Final = 160
"""Trained weights to one noise value drawn at a time: a draw takes some 40 bytes a value, so a sixteenth of the
gradient, within the bounds above."""


class PatientDPOptimizer(DPOptimizer):  # type: ignore[misc]  # opacus is untyped
    """Opacus' DPOptimizer with secret noise, without spare copies of the gradient, and safe against NaN.

    A gradient that is not finite, or whose norm is not, counts as zero as a whole: the clipping factor would turn it
    into NaN, which tells of its patient. At most two tensors of the trained parameters' size exist at a time: the
    running sum, and one patient's gradient or the noised result.

    Args:
        optimizer: Applies the noised mean; momentum, weight decay and learning rate are post-processing.
        noise_multiplier: sigma.
        max_grad_norm: C.
        expected_patients: E = sampling rate times the public number of patients; never the number drawn.
        secret: Source of the noise.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        *,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_patients: float,
        secret: SecretRng,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_patients,
            loss_reduction="mean",
        )
        self._secret = secret
        num_trained = sum(parameter.numel() for parameter in self.params)
        self._chunk = min(_LARGEST_CHUNK, max(_LEAST_CHUNK, num_trained // _WEIGHTS_PER_NOISE))

    def begin(self) -> None:
        """Forget what a step that an error ended has left; its patients would otherwise be in two sums."""
        self._step_skip_queue.clear()
        self._is_last_step_skipped = False
        self.zero_grad(set_to_none=True)

    def clip_and_accumulate(self) -> None:
        """Add one patient's clipped gradient to the sum: opacus' formula, in place (a test holds them equal)."""
        samples = self.grad_samples
        for sample in samples:
            _check_processed_flag(sample)
            _mark_as_processed(sample)
        if len(samples[0]) > 0:
            norm = torch.stack([sample.norm(2) for sample in samples]).norm(2)
            if bool(torch.isfinite(norm)):
                factor = (self.max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
                for parameter, sample in zip(self.params, samples, strict=True):
                    clipped = sample[0].mul_(factor)
                    if parameter.summed_grad is None:
                        parameter.summed_grad = clipped
                    else:
                        parameter.summed_grad += clipped
        for parameter in self.params:
            if parameter.summed_grad is None:
                parameter.summed_grad = torch.zeros_like(parameter)

    def add_noise(self) -> None:
        """Add secret noise of standard deviation sigma C to the sum, which becomes the gradient."""
        std = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            _check_processed_flag(parameter.summed_grad)
            gradient = parameter.summed_grad.contiguous()
            if std > 0:
                flat = gradient.view(-1)
                for part in flat.split(self._chunk):
                    noise = torch.from_numpy(std * self._secret.normal(part.numel()))
                    part.add_(noise.to(part.device, part.dtype))
            parameter.grad = gradient.view_as(parameter)
            _mark_as_processed(parameter.summed_grad)


def private_step(optimizer: PatientDPOptimizer, losses: Iterable[Callable[[], Tensor | None]]) -> None:
    """Do one step: every drawn patient's gradient clipped and added, noise once, division by the expected number.

    A step without patients is a step: it adds noise like any other, since who was drawn is secret.

    Args:
        optimizer: Of the trained parameters.
        losses: Per drawn patient a function that computes the loss of that patient's frames. It is called in turn,
            and its graph is gone before the next. None: a patient that cannot be read, who counts as zero.
    """
    optimizer.begin()
    for loss in losses:
        value = loss()
        if value is None:
            continue
        value.backward()  # type: ignore[no-untyped-call]
        del value  # or the graph would live through the next patient's forward pass
        for parameter in optimizer.params:
            if parameter.grad is None:  # not used by this patient
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad_sample = parameter.grad.detach()[None]  # this microbatch is one sample
            parameter.grad = None
        optimizer.signal_skip_step(True)
        optimizer.step()  # clips and adds
        optimizer.zero_grad(set_to_none=True)  # keeps the sum, frees the patient's gradient
    for parameter in optimizer.params:
        parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
    optimizer.signal_skip_step(False)
    optimizer.step()  # noise, division, update
    optimizer.zero_grad(set_to_none=True)
