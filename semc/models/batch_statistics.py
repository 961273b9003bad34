"""Batch norm that normalises by the batch at hand while everything else is as in evaluation.

Training mode of the whole network would also draw gate noise; here only the batch norms are in training mode, so a
forward is a function of weights and images alone and takes nothing from any random stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from semc.models.expert_batch_norm import ExpertBatchNorm


def batch_norms(network: nn.Module) -> dict[str, _BatchNorm]:
    """Return every batch norm that keeps running statistics, by its dotted name."""
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


@contextmanager
def normalised_by_batch(network: nn.Module) -> Iterator[None]:
    """Put batch norms in training and all other modules in evaluation mode; every mode is put back afterwards.

    Running statistics follow the batches, by each norm's own momentum; they are the caller's to read or to restore.
    """
    before = {module: module.training for module in network.modules()}
    try:
        for module in before:
            module.training = isinstance(module, (_BatchNorm, ExpertBatchNorm))
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Put running means, variances and counters back bit for bit after a block, also after an error."""
    norms = list(batch_norms(network).values())
    before = [[buffer.clone() for buffer in norm.buffers(recurse=False)] for norm in norms]
    try:
        yield
    finally:
        for norm, values in zip(norms, before, strict=True):
            for buffer, value in zip(norm.buffers(recurse=False), values, strict=True):
                buffer.copy_(value)
