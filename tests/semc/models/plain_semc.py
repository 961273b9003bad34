"""The oracle: SEMC's equations one expert at a time, in plain torch calls on ordinary image tensors.

Nothing of the package's fast paths is used: no channel-major maps, no small-map products, no stacked batch
norm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from semc.config import StudyConfig
from semc.models import SEMCNet


@dataclass
class PlainOutput:
    deep: list[Tensor]
    refined: list[Tensor]
    expert_logits: Tensor
    embeddings: Tensor | None


class PlainSEMC:
    """Evaluates a SEMCNet's weights by the equations; batch norm uses batch statistics where `training`."""

    def __init__(self, network: SEMCNet, study: StudyConfig, training: bool) -> None:
        self.network = network
        self.config = study.model
        self.state = {**dict(network.named_parameters()), **dict(network.named_buffers())}
        self.training = training

    def __call__(self, images: Tensor) -> PlainOutput:
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        x = functional.conv2d(images, self.state["backbone.conv1.weight"], stride=2, padding=3)
        x = functional.max_pool2d(self.norm(x, "backbone.bn1").relu(), 3, 2, 1)
        shallow = []
        for stage in ("layer1", "layer2", "layer3"):
            x = self.resnet_stage(x, f"backbone.{stage}", 1 if stage == "layer1" else 2)
            shallow.append(x)
        deep = [self.resnet_stage(x, f"experts.{n}", 2) for n in range(self.config.experts)]
        mixed = [
            d + self.ace(shallow[n], f"aces.{n}") if self.config.ace and n < 3 else d
            for n, d in enumerate(deep)
        ]
        refined = [self.samc(m, n) if self.config.samc else m for n, m in enumerate(mixed)]
        logits = torch.stack(
            [
                o.mean((2, 3)) @ self.state[f"classifiers.{n}.weight"].T + self.state[f"classifiers.{n}.bias"]
                for n, o in enumerate(refined)
            ]
        )
        embeddings = None
        if self.network.projection is not None:
            embeddings = torch.stack([self.project(o, n) for n, o in enumerate(refined)])
        return PlainOutput(deep, refined, logits, embeddings)

    def norm(self, x: Tensor, key: str) -> Tensor:
        mean, variance = self.state[f"{key}.running_mean"], self.state[f"{key}.running_var"]
        if self.training:
            dims = [0, *range(2, x.ndim)]
            mean, variance = x.mean(dims), x.var(dims, unbiased=False)
        shape = (1, -1, *[1] * (x.ndim - 2))
        x = (x - mean.view(shape)) / (variance.view(shape) + 1e-5).sqrt()
        return x * self.state[f"{key}.weight"].view(shape) + self.state[f"{key}.bias"].view(shape)

    def expert_norm(self, x: Tensor, key: str, n: int) -> Tensor:
        return self.norm(x, f"{key}.norms.{n if self.config.samc_bn == 'per_expert' else 0}")

    def conv(self, x: Tensor, key: str, stride: int = 1, groups: int = 1) -> Tensor:
        weight = self.state[f"{key}.weight"]
        if weight.ndim == 2:
            weight = weight[:, :, None, None]
        return functional.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, groups)

    def resnet_stage(self, x: Tensor, key: str, stride: int) -> Tensor:
        block = 0
        while f"{key}.{block}.conv1.weight" in self.state:
            name, step = f"{key}.{block}", stride if block == 0 else 1
            bottleneck = f"{name}.conv3.weight" in self.state
            shortcut = x
            if f"{name}.downsample.0.weight" in self.state:
                shortcut = self.norm(self.conv(x, f"{name}.downsample.0", step), f"{name}.downsample.1")
            x = self.norm(self.conv(x, f"{name}.conv1", 1 if bottleneck else step), f"{name}.bn1").relu()
            x = self.norm(self.conv(x, f"{name}.conv2", step if bottleneck else 1), f"{name}.bn2")
            if bottleneck:
                x = self.norm(self.conv(x.relu(), f"{name}.conv3"), f"{name}.bn3")
            x = (x + shortcut).relu()
            block += 1
        return x

    def ace(self, x: Tensor, key: str) -> Tensor:
        config = self.config
        slope = 0.0 if config.ace_activation == "relu" else 0.2
        layers = [
            layer for layer in self.network.get_submodule(f"{key}.layers") if isinstance(layer, nn.Conv2d)
        ]
        names = [
            name
            for name, m in self.network.get_submodule(f"{key}.layers").named_children()
            if hasattr(m, "weight")
        ]
        convs, norms = names[0::2], names[1::2]
        for i, (conv, norm) in enumerate(zip(convs, norms, strict=True)):
            depthwise, last = i % 2 == 0 and i < len(convs) - 1, i == len(convs) - 1
            x = self.conv(x, f"{key}.layers.{conv}", 2 if depthwise else 1, len(x[0]) if depthwise else 1)
            x = self.norm(x, f"{key}.layers.{norm}")
            active = depthwise or (config.ace_out_activation if last else config.ace_stage_activation)
            x = functional.leaky_relu(x, slope) if active else x
        assert len(layers) == len(convs)
        return x

    def samc(self, m: Tensor, n: int) -> Tensor:
        key = "samc" if self.config.samc_shared else f"samc.{n}"
        fc1 = self.state[f"{key}.channel_attention.reduce.weight"]
        fc2 = self.state[f"{key}.channel_attention.restore.weight"]
        pools = (
            functional.adaptive_avg_pool2d(m, 1).flatten(1),
            functional.adaptive_max_pool2d(m, 1).flatten(1),
        )
        c = sum(functional.leaky_relu(pool @ fc1.T, 0.2) @ fc2.T for pool in pools)
        m = m * c.sigmoid()[:, :, None, None]
        s = torch.cat([m.mean(1, keepdim=True), m.max(1, keepdim=True)[0]], dim=1)
        x = m * self.conv(s, f"{key}.spatial_attention.conv").sigmoid()
        body = f"{key}.multi_context"
        norm_expert = n if self.config.samc_shared else 0
        u = functional.relu6(
            self.expert_norm(self.conv(x, f"{body}.expand"), f"{body}.expand_norm", norm_expert)
        )
        v = []
        for i in range(3):
            branch = self.conv(u, f"{body}.branches.{i}", groups=u.shape[1])
            v.append(functional.relu6(self.expert_norm(branch, f"{body}.branch_norms.{i}", norm_expert)))
        joined = torch.cat(v, dim=1) if self.config.samc_fuse == "concat" else v[0] + v[1] + v[2]
        groups = x.shape[1]  # gcd(channels, C) = C
        shuffled = joined.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)
        o = self.expert_norm(self.conv(shuffled, f"{body}.project"), f"{body}.project_norm", norm_expert)
        return o + x if self.config.samc_residual else o

    def project(self, o: Tensor, n: int) -> Tensor:
        h = (
            self.expert_norm(self.conv(o, "projection.reduce"), "projection.reduce_norm", n)
            .relu()
            .mean((2, 3))
        )
        e = h @ self.state["projection.embed.weight"].T + self.state["projection.embed.bias"]
        e = self.expert_norm(e, "projection.embed_norm", n)
        return e / e.norm(dim=1, keepdim=True)
