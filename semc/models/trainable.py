"""What of a network a private study trains; everything else is frozen and public.

Noise has the same size in every trained weight, so that its norm grows with the root of their number.
"""

from __future__ import annotations

from torch import nn

from semc.config.privacy import Trainable
from semc.models.semc_net import SEMCNet


def train_only(network: SEMCNet, trainable: Trainable) -> None:
    """Freeze all parameters but those of the named set; parts that the study switched off are left out.

    Args:
        network: Changed in place.
        trainable: heads = classifiers and gate; heads+projection = also projection and prototypes; adapters = also
            the adapters; all = as built.
    """
    if trainable == "all":
        return
    network.requires_grad_(False)
    parts: list[nn.Module | nn.Parameter | None] = [network.classifiers, network.gate]
    if trainable in ("heads+projection", "adapters"):
        parts += [network.projection, network.prototypes_KD]
    if trainable == "adapters":
        parts.append(network.adapters)
    for part in parts:
        if part is not None:
            part.requires_grad_(True)
