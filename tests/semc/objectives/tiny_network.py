"""A small real network with SEMC's output, studies for it, and batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from semc.config import StudyConfig, parse_study
from semc.datasets import Batch
from semc.models import SEMCOutput

CLASSES = 3
STUDY = """
name: tiny
preset: robust
data: {classes: [head, abdomen, femur], image_size: 32}
model: {backbone: resnet18, embedding_dim: 8}
training: {batch_size: 4, local_steps: 2}
federation: {sites: [north, south], rounds: 2}
"""


def study(**objective: Any) -> StudyConfig:
    """Return a robust study with other objective settings."""
    return parse_study(STUDY, {f"objective.{key}": value for key, value in objective.items()})


class TinyExperts(nn.Module):
    """Linear experts over batch-normalised pixels; gate, alpha and embeddings as SEMCNet has them."""

    def __init__(self, experts: int = 3, alpha_outputs: int = 2, mc: bool = True, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.norm = nn.BatchNorm1d(12)
            self.mix = nn.Linear(12, 12)
            self.experts = nn.ModuleList(nn.Linear(12, CLASSES) for _ in range(experts))
            self.projections = nn.ModuleList(nn.Linear(12, 8) for _ in range(experts if mc else 0))
            self.gate = nn.Linear(12, experts)
            self.alpha = nn.Linear(12, alpha_outputs) if alpha_outputs and mc else None

    def forward(self, images_BCHW: Tensor) -> SEMCOutput:
        features = self.mix(self.norm(images_BCHW.flatten(1)))
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        with torch.autocast(features.device.type, enabled=False):
            return self.heads(features)

    def heads(self, features: Tensor) -> SEMCOutput:
        logits_NBK = torch.stack([expert(features) for expert in self.experts])
        weights_BN = self.gate(features).softmax(1)
        embeddings = [functional.normalize(head(features), dim=1) for head in self.projections]
        return SEMCOutput(
            logits_BK=torch.einsum("bn,nbk->bk", weights_BN, logits_NBK),
            expert_logits_NBK=logits_NBK,
            gate_weights_BN=weights_BN,
            embeddings_NBD=torch.stack(embeddings) if embeddings else None,
            alpha_raw_BA=None if self.alpha is None else self.alpha(features.detach()),
        )


def batch(
    size: int = 4, first_id: int = 0, labels: list[int] | None = None, dtype: torch.dtype = torch.float64
) -> Batch:
    """Return a batch whose images, labels and ids are functions of `first_id`."""
    generator = torch.Generator().manual_seed(first_id)
    return Batch(
        images_BCHW=torch.randn(size, 3, 2, 2, generator=generator, dtype=torch.float64).to(dtype),
        labels_B=torch.tensor(labels) if labels else torch.randint(CLASSES, (size,), generator=generator),
        ids_B=torch.arange(first_id, first_id + size),
        groups_B=torch.arange(size),
    )


def batch32(size: int, first_id: int = 0, device: str = "cpu") -> Batch:
    """Return a batch of 32-pixel float32 images in which every class occurs twice or more."""
    generator = torch.Generator().manual_seed(first_id)
    return Batch(
        images_BCHW=torch.randn(size, 3, 32, 32, generator=generator).to(device),
        labels_B=(torch.arange(size) % CLASSES).to(device),
        ids_B=torch.arange(first_id, first_id + size).to(device),
        groups_B=torch.arange(size).to(device),
    )
