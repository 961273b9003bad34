"""A study and a network small enough to follow by hand."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from semc.config import StudyConfig, parse_study
from semc.datasets import Batch
from semc.models import SEMCOutput
from semc.objectives import Objective, build_objective
from semc.seed import derive_seed, seeded_init

CLASSES = 3
SIDE = 32

STUDY = """
name: tiny
data: {classes: [a, b, c], image_size: 32, normalisation: none, augmentation: none}
model: {backbone: resnet18, samc_expansion: 1, embedding_dim: 8}
objective: {name: classification, cross_entropy: plain}
training: {batch_size: 6, local_steps: 4, learning_rate: 0.05, schedule: constant, warmup_fraction: 0.0}
federation: {sites: [one], rounds: 2}
"""


def tiny_study(**overrides: Any) -> StudyConfig:
    """Return the study with overrides, dots written as double underscores."""
    return parse_study(STUDY, {key.replace("__", "."): value for key, value in overrides.items()})


class TinyNetwork(nn.Module):
    """Convolution, batch norm, linear head, and a frozen part."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with seeded_init(seed):
            self.conv = nn.Conv2d(3, 4, 3, stride=4)
            self.norm = nn.BatchNorm2d(4)
            self.head = nn.Linear(4, CLASSES)
            self.frozen = nn.Linear(4, 4, bias=False).requires_grad_(False)

    def forward(self, images_BCHW: Tensor) -> SEMCOutput:
        """Classify; gate weights of one expert."""
        features_BC = torch.relu(self.norm(self.conv(images_BCHW))).mean(dim=(2, 3))
        logits_BK = self.head(features_BC + self.frozen(features_BC))
        return SEMCOutput(
            logits_BK=logits_BK,
            expert_logits_NBK=logits_BK[None],
            gate_weights_BN=torch.ones(len(images_BCHW), 1, device=images_BCHW.device),
            embeddings_NBD=None,
            alpha_raw_BA=None,
        )


def tiny_batches(num_batches: int, seed: int = 0, size: int = 6) -> Iterator[Batch]:
    """Yield batches whose classes differ in brightness."""
    generator = torch.Generator().manual_seed(derive_seed("tiny", seed))
    for number in range(num_batches):
        labels_B = torch.arange(size) % CLASSES
        noise = torch.randn(size, 3, SIDE, SIDE, generator=generator)
        yield Batch(
            images_BCHW=0.3 * noise + labels_B[:, None, None, None] - 1.0,
            labels_B=labels_B,
            ids_B=torch.arange(size) + number * size,
            groups_B=torch.arange(size),
        )


def objective_of(study: StudyConfig) -> Objective:
    """Return the study's objective for balanced classes."""
    return build_objective(study, [8] * CLASSES, 8 * CLASSES)


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Return a copy of a network's state."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """Say whether two states are bit-equal."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
