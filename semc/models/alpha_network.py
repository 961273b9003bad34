"""The network behind alpha, which weighs L_moe against L_mc per image (eq. 19).

Its raw output is bounded by the objective.
"""

from __future__ import annotations

from torch import Tensor, nn

from semc.config import ObjectiveConfig

HIDDEN = 64
"""Hidden units of g."""


class AlphaNetwork(nn.Module):
    """g: two linear layers, raw output.

    `learned` and `uncertainty` read the detached pooled feature GAP(mean_n O_n). `reference` reproduces the
    released code: frozen weights on the third expert's embedding, through which its gradient reaches the
    network.

    Args:
        channels: C of the pooled feature.
        embedding_dim: D of the embeddings.
        kind: learned (A = 1) | uncertainty (A = 2: s_moe, s_mc) | reference (A = 1).
    """

    def __init__(self, channels: int, embedding_dim: int, kind: str) -> None:
        super().__init__()
        self.reads_embedding = kind == "reference"
        self.layers = nn.Sequential(
            nn.Linear(embedding_dim if self.reads_embedding else channels, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Linear(HIDDEN, 2 if kind == "uncertainty" else 1),
        )
        self.requires_grad_(not self.reads_embedding)

    def forward(self, pooled_NBC: Tensor, embeddings_NBD: Tensor) -> Tensor:
        """Return the raw outputs [B, A] from GAP(O_n) and the embeddings p_n."""
        source_BC = embeddings_NBD[:3][-1] if self.reads_embedding else pooled_NBC.detach().mean(dim=0)
        raw_BA: Tensor = self.layers(source_BC)
        return raw_BA


def needs_alpha_network(objective: ObjectiveConfig) -> bool:
    """Return whether alpha is computed by a network at all."""
    return objective.mc and objective.alpha in ("learned", "uncertainty", "reference")
