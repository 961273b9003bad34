"""The weighted mean of one tensor over the sites, in float64 and in the order given."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def weighted_mean(rows: Iterable[tuple[float, Tensor]]) -> Tensor:
    """Return sum_i w_i x_i / sum_i w_i.

    Float addition is not associative: the caller fixes the order (site names), so the same replies give the
    same bits whichever arrived first.

    Args:
        rows: Weight (> 0) and tensor of each site, equal shapes, any float dtype.

    Returns:
        The mean in float64.

    Raises:
        ValueError: There are no rows.
    """
    weighted: Tensor | None = None
    total = 0.0
    for weight, tensor in rows:
        term = tensor.double() * weight
        weighted = term if weighted is None else weighted.add_(term)
        total += weight
    if weighted is None:
        raise ValueError("a mean needs at least one site")
    return weighted.div_(total)
