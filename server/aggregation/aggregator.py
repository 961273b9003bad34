"""The seam between the round loop and whatever combines replies: all that the loop asks of an aggregation.

Another rule (a median, secure aggregation) takes this place without a line of the loop changing. It is handed replies
that passed `server/inbound.py`; one that hides single replies from the coordinator would have to do without that
check, which SECURITY.md weighs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor


class Aggregator(Protocol):
    """Takes a round's replies and makes the next global model."""

    def clear(self) -> None:
        """Forget the replies of the round in hand."""

    def take(self, site: str, payload: bytes) -> None:
        """Keep one site's validated reply, at most one per round.

        Args:
            site: Name of the site.
            payload: Its tensors, packed by :func:`semc.wire.pack`.

        Raises:
            SemcError: DISK where it cannot be kept.
            ValueError: The site already has a reply in this round.
        """

    def next_model(self, current: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the next global model, made from at least one reply.

        Args:
            current: The model the sites started from, float32; what no site sends back stays bit for bit.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a continued study needs, tensors only."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state_dict` returned."""
