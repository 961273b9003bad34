"""ACE: brings a shallow feature F_n to the size and width of its expert's deep feature (eq. 5-6).

Each stage halves the map and doubles the channels: depthwise 3x3 stride 2, batch norm, activation, 1x1, batch
norm. F1, F2, F3 need 3, 2, 1 stages; a 1x1 projection ends the branch. Deviation: the paper says where
activations stand only in part; the released code uses leaky ReLU, also after each stage's second batch norm
but not after the projection, so that its F'_n can subtract from D_n. All three are settings.
"""

from __future__ import annotations

from torch import Tensor, nn

from semc.config import ModelConfig
from semc.models.layers import conv1x1


class ACE(nn.Module):
    """One alignment branch.

    Args:
        in_channels: Channels of F_n.
        out_channels: Channels of the experts, in_channels times a power of two.
        config: Activation and initialisation switches.
    """

    def __init__(self, in_channels: int, out_channels: int, config: ModelConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        while channels < out_channels:
            layers += [
                nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False),
                nn.BatchNorm2d(channels),
                _activation(config),
                conv1x1(channels, 2 * channels),
                nn.BatchNorm2d(2 * channels),
            ]
            if config.ace_stage_activation:
                layers.append(_activation(config))
            channels *= 2
        layers += [conv1x1(out_channels, out_channels), nn.BatchNorm2d(out_channels)]
        if config.ace_out_activation:
            layers.append(_activation(config))
        self.layers = nn.Sequential(*layers)
        if config.ace_init == "normal":
            self._initialise_normal()

    def forward(self, shallow_BCHW: Tensor) -> Tensor:
        """Return F'_n, of the experts' shape, from F_n."""
        aligned: Tensor = self.layers(shallow_BCHW)
        return aligned

    def _initialise_normal(self) -> None:
        for layer in self.layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.02)


def ace_sources(num_experts: int) -> tuple[int | None, ...]:
    """Return the number n of each expert's shallow feature F_n (eq. 7); a fourth expert has none."""
    return tuple(expert if expert <= 3 else None for expert in range(1, num_experts + 1))


def _activation(config: ModelConfig) -> nn.Module:
    if config.ace_activation == "relu":
        return nn.ReLU(inplace=True)
    return nn.LeakyReLU(0.2, inplace=True)
