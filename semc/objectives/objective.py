"""The contract between a method and the trainer.

An objective says what one training step minimises. It owns no trainable parameters (those are children of the
network) and keeps what must not travel: past keys, their labels and ids, running means. The trainer calls

    terms = objective.step(network, batch, progress)
    terms.total.backward(); optimiser.step()
    objective.after_step(network)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from semc.datasets import Batch
from semc.objectives.local_tensors import check_tensors


@dataclass(frozen=True)
class LossTerms:
    """The result of one step."""

    total: Tensor
    """Scalar to minimise, with its graph."""
    terms: dict[str, float]
    """Parts to report, detached: contrastive ones minus their floor, so sites with other queues compare."""
    expert_use_N: tuple[float, ...]
    """Mean gate weight of each expert over the batch; sums to 1."""


ImagesOf = Callable[[Sequence[int]], Iterable[Batch]]
"""A site's own training images by id (row number of its manifest), without augmentation, in batches; ids that the
site no longer has are left out. Only the site's own process can call it: no image is ever sent for it."""


class Objective(ABC):
    """What one training step minimises, with the local state that takes; by default there is none."""

    @abstractmethod
    def step(self, network: nn.Module, batch: Batch, progress: float) -> LossTerms:
        """Run the network on a batch and compute its loss; local state stays as it is.

        Args:
            network: The study's network, in training mode.
            batch: Images with labels and image ids, on the network's device.
            progress: Elapsed share of the study, 0 to 1.
        """

    def after_step(self, network: nn.Module) -> None:  # noqa: B027 - most leave nothing
        """Take over what the last step left (keys, running means); called after the optimiser's step."""

    def new_global_weights(self, network: nn.Module, images_of: ImagesOf | None = None) -> None:  # noqa: B027 - likewise
        """Adapt the local state to shared weights that have just been received and merged.

        Args:
            network: With the new weights; stays as it is.
            images_of: The site's images, for objectives that encode old ones again.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of the local state, on the CPU; it stays at the site."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            SemcError: CHECKPOINT_INVALID if a tensor is missing, unknown or of another shape or type.
        """
        check_tensors(state, {})

    def round_state_dict(self, network: nn.Module) -> dict[str, Tensor]:
        """Return copies of all that the next step depends on, what every round makes anew included.

        Args:
            network: The study's network, between two steps.
        """
        del network
        return self.state_dict()

    def load_round_state_dict(self, state: Mapping[str, Tensor], network: nn.Module) -> None:
        """Restore what :meth:`round_state_dict` returned, in place of :meth:`new_global_weights`.

        Args:
            state: Taken between two steps of the round that goes on.
            network: The study's network, with any weights.

        Raises:
            SemcError: CHECKPOINT_INVALID if a tensor is missing, unknown or of another shape or type.
        """
        del network
        self.load_state_dict(state)
