"""The seam between the round loop and whatever combines replies: all that the loop asks of an aggregation.

Another rule (a median, secure aggregation) takes this place without a line of the loop changing. It is handed replies
that passed `server/inbound.py` and lie in the spool; one that hides single replies from the coordinator would have to
do without that check, which SECURITY.md weighs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from torch import Tensor


class Aggregator(Protocol):
    """Makes the next global model of a round's replies."""

    def next_model(self, current: Mapping[str, Tensor], payloads: Mapping[str, Path]) -> dict[str, Tensor]:
        """Return the next global model.

        Args:
            current: The model the sites started from, float32; what no site sends back stays bit for bit.
            payloads: Site to its reply, a validated safetensors file packed by :func:`semc.wire.pack`; at least one.
        """

    def state_dict(self) -> dict[str, Tensor]:
        """Return what a continued study needs, tensors only."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put back what :meth:`state_dict` returned."""
