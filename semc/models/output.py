"""What a network hands to its objective: every tensor a loss, the queue or the evaluator may need.

Shape suffixes: B batch, K classes, N experts, C channels, D embedding, A alpha outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SEMCOutput:
    """One forward pass; all tensors are at least float32, also under mixed precision."""

    logits_BK: Tensor
    """Fused class logits z = Σ w_n z_n (eq. 17)."""
    expert_logits_NBK: Tensor
    """Each expert's own class logits z_n."""
    gate_weights_BN: Tensor
    """Expert weights w; each row sums to 1 (eq. 16)."""
    embeddings_NBD: Tensor | None
    """Unit-norm embeddings p_n; None where the contrastive branch is off."""
    alpha_raw_BA: Tensor | None
    """Alpha network before its bounding function; A = 2: (s_moe, s_mc). None where alpha is no network."""
    prototypes_KD: Tensor | None = None
    """Learnable class prototypes of `semc_dp`, of any length; None where there are none."""


@dataclass(frozen=True)
class PooledFeatures:
    """All that classifiers and gate read of some images; at least float32."""

    pooled_NBC: Tensor
    """GAP(O_n) of each expert."""
    gate_input_BC: Tensor
    """What the gate reads: GAP of mean_n D_n or of mean_n O_n."""

    def by_image(self) -> list[PooledFeatures]:
        """Return copies, one image each."""
        return [
            PooledFeatures(self.pooled_NBC[:, b : b + 1].clone(), self.gate_input_BC[b : b + 1].clone())
            for b in range(len(self.gate_input_BC))
        ]

    @classmethod
    def joined(cls, parts: Sequence[PooledFeatures]) -> PooledFeatures:
        """Return the features of several images as one batch, in the order given."""
        return cls(
            torch.cat([part.pooled_NBC for part in parts], dim=1),
            torch.cat([part.gate_input_BC for part in parts]),
        )
