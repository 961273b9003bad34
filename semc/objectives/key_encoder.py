"""A slow local copy of the network that makes the queue's keys (`key_encoder: ema`).

Keys of an encoder that changes slowly age less in the queue. The copy is never exchanged nor kept from one round
to the next: it starts again from the received weights in every round.

Shape legend: B images, C channels, H, W, N experts, D embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from semc.models import SEMCOutput
from semc.objectives.local_tensors import check_tensors, copy_tensors

DECAY = 0.999
"""m in ``theta_key <- m theta_key + (1 - m) theta``."""


class EmaKeyEncoder:
    """Exponential moving average of the network's weights, as an encoder without gradient."""

    def __init__(self) -> None:
        self._copy: nn.Module | None = None

    @torch.no_grad()
    def reset(self, network: nn.Module) -> None:
        """Start again as an exact copy of ``network``."""
        if self._copy is None:
            self._copy = copy.deepcopy(network).requires_grad_(False)
            self._copy.zero_grad(set_to_none=True)
        else:
            self._copy.load_state_dict(network.state_dict())

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the weights a step towards ``network``; its batch norms keep statistics of their own."""
        for slow, fast in zip(self._started(network).parameters(), network.parameters(), strict=True):
            slow.lerp_(fast.detach(), 1.0 - DECAY)

    @torch.no_grad()
    def encode(self, network: nn.Module, images_BCHW: Tensor) -> Tensor:
        """Return embeddings_NBD of the slow copy, in the mode (training or not) of ``network``.

        Args:
            network: What the copy starts from where there is none yet.
            images_BCHW: The batch.
        """
        output = self._started(network).train(network.training)(images_BCHW)
        if not isinstance(output, SEMCOutput) or output.embeddings_NBD is None:
            raise ValueError("the key encoder needs a network with embeddings")
        return output.embeddings_NBD

    def state_dict(self, network: nn.Module) -> dict[str, Tensor]:
        """Return copies of the slow weights and statistics on the CPU, by the names they have in ``network``."""
        return copy_tensors(self._started(network).state_dict())

    def load_state_dict(self, state: Mapping[str, Tensor], network: nn.Module) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            SemcError: CHECKPOINT_INVALID if it is of another network.
        """
        check_tensors(state, network.state_dict())
        self._started(network).load_state_dict(state)

    def _started(self, network: nn.Module) -> nn.Module:
        if self._copy is None:
            self.reset(network)
        assert self._copy is not None
        return self._copy
