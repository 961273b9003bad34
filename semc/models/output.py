"""What a network hands to its objective: every tensor a loss, the queue or the evaluator may need.

Shape suffixes: B batch, K classes, N experts, D embedding, A alpha outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

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
