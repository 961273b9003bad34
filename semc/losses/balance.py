"""Even use of the experts: the squared coefficient of variation of their importance.

Shape legend: B samples, N experts.
"""

from __future__ import annotations

from torch import Tensor


def importance_cv_squared(gate_weights_BN: Tensor) -> Tensor:
    """Return how unevenly a batch uses the experts.

    ``I_n = sum_b w_bn``, ``CV^2 = Var_n(I) / Mean_n(I)^2`` (population variance): 0 when every expert gets
    the same total weight, N - 1 when one gets all. Without it an expert with little weight gets little
    gradient from the fused cross-entropy and never earns more.

    Args:
        gate_weights_BN: Gate weights w, rows sum to 1.

    Returns:
        Scalar.
    """
    importance_N = gate_weights_BN.sum(0)
    mean = importance_N.mean()
    return (importance_N - mean).square().mean() / mean.square()
