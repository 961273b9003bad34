"""SEMCNet: semantic-enhanced mixture of contrastive experts, as in the paper's figure.

Deviations from the released code: `forward` is pure (no labels, no queue, no noise in evaluation), router and
alpha network are children that are trained and saved, its unused modules do not exist, and a part that a
study switches off leaves no parameters. Shape suffixes: B batch, N experts, K classes, D embedding, C
channels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from semc.config import StudyConfig
from semc.models.ace import ACE, ace_sources
from semc.models.adapters import Adapters
from semc.models.alpha_network import AlphaNetwork, needs_alpha_network
from semc.models.backbone import Backbone, ShallowFeatures
from semc.models.channel_maps import ChannelMaps
from semc.models.experts import Classifiers, Experts
from semc.models.gate import Gate
from semc.models.layers import at_least_float32, full_precision
from semc.models.output import PooledFeatures, SEMCOutput
from semc.models.projection import Projection
from semc.models.samc import build_samc
from semc.models.weights import part_of


class SEMCNet(nn.Module):
    """The network of equations 1-10, 16-17 and the alpha network of equation 19.

    For `semc_dp` it may also hold adapters, and the class prototypes of the contrast.
    """

    def __init__(self, study: StudyConfig) -> None:
        super().__init__()
        config, objective = study.model, study.objective
        self.backbone = Backbone(config.backbone)
        shape = self.backbone.shape
        channels = shape.channels(4)
        self.experts = Experts(config.backbone, config.experts)
        self.ace_sources = ace_sources(config.experts) if config.ace else (None,) * config.experts
        self.aces = nn.ModuleList(
            ACE(shape.channels(source), channels, config) for source in self.ace_sources if source is not None
        )
        self.samc = build_samc(channels, config)
        self.classifiers = Classifiers(channels, len(study.data.classes), config.experts)
        self.gate = Gate(channels, config)
        self.gate_reads_deep = config.gate_input == "deep_mean"
        self.projection: Projection | None = None
        if objective.mc:
            self.projection = Projection(
                channels, config.embedding_dim, config.experts, per_expert_bn=config.samc_bn == "per_expert"
            )
        self.alpha_network: AlphaNetwork | None = None
        if needs_alpha_network(objective):
            self.alpha_network = AlphaNetwork(channels, config.embedding_dim, objective.alpha)
        # Built last: every other initial weight is the same with them and without.
        self.adapters: Adapters | None = None
        if config.adapter_width > 0:
            self.adapters = Adapters(channels, config.adapter_width, config.experts)
        self.prototypes_KD: nn.Parameter | None = None
        if objective.name == "semc_dp" and objective.mc:
            self.prototypes_KD = nn.Parameter(torch.randn(len(study.data.classes), config.embedding_dim))

    def forward(self, images_BCHW: Tensor) -> SEMCOutput:
        """Classify and embed a batch of grey or colour images [B, 1 or 3, H, W].

        Raises:
            ValueError: In training with a single image (batch norm needs two).
        """
        deep_N, refined = self._maps(images_BCHW)
        embeddings_NBD = None if self.projection is None else self.projection(refined)  # p_n
        return self.classify(self._pool(deep_N, refined), embeddings_NBD)

    def pooled(self, images_BCHW: Tensor) -> PooledFeatures:
        """Return all that classifiers and gate read of a batch; with those two alone trained, worth keeping."""
        return self._pool(*self._maps(images_BCHW))

    def classify(self, features: PooledFeatures, embeddings_NBD: Tensor | None = None) -> SEMCOutput:
        """Return the output for features of :meth:`pooled`; `forward` is both, and the embeddings."""
        # Heads in float32 also under mixed precision: they are tiny, and their outputs enter softmaxes.
        with full_precision(features.pooled_NBC):
            gate_weights_BN: Tensor = self.gate(features.gate_input_BC)  # w, eq. 16
            expert_logits_NBK: Tensor = self.classifiers(features.pooled_NBC)  # z_n
            logits_BK = (gate_weights_BN.T.unsqueeze(2) * expert_logits_NBK).sum(dim=0)  # z, eq. 17
            alpha_raw_BA = None
            if self.alpha_network is not None:
                alpha_raw_BA = self.alpha_network(features.pooled_NBC, embeddings_NBD)
        return SEMCOutput(
            logits_BK, expert_logits_NBK, gate_weights_BN, embeddings_NBD, alpha_raw_BA, self.prototypes_KD
        )

    def set_progress(self, fraction: float) -> None:
        """Set the share of the study done, 0-1; it moves the gate's training temperature."""
        self.gate.progress = min(max(fraction, 0.0), 1.0)

    def load_pretrained(self, weights: Mapping[str, Tensor], *, experts: bool) -> None:
        """Copy a ResNet's weights into the backbone and, if asked, its stage 4 into every expert.

        Raises:
            SemcError: WEIGHTS_INVALID, a tensor is missing or of another shape.
        """
        self.backbone.load_state_dict(part_of(weights, self.backbone))
        if experts:
            self.experts.load_pretrained(part_of(weights, self.experts[0], "layer4."))

    def _maps(self, images_BCHW: Tensor) -> tuple[list[Tensor], ChannelMaps]:
        """Return the deep features D_n and the refined maps O_n."""
        shallow: ShallowFeatures = self.backbone(images_BCHW)  # F_1..F_3, eq. 1
        deep_N: list[Tensor] = self.experts(shallow.f3_BCHW)  # D_n, eq. 2-4
        mixed = ChannelMaps.stack(self._mix(shallow, deep_N))  # M_n, eq. 5-7
        refined: ChannelMaps = self.samc(mixed)  # O_n, eq. 8-10
        return deep_N, refined if self.adapters is None else self.adapters(refined)

    def _pool(self, deep_N: list[Tensor], refined: ChannelMaps) -> PooledFeatures:
        with full_precision(refined.values_CMP):
            pooled_NBC = refined.global_average()
            gate_input_BC = _pooled_mean(deep_N) if self.gate_reads_deep else pooled_NBC.mean(dim=0)
        return PooledFeatures(pooled_NBC, gate_input_BC)

    def _mix(self, shallow: ShallowFeatures, deep_N: list[Tensor]) -> list[Tensor]:
        """Return M_n = F'_n + D_n, or D_n where an expert has no shallow partner."""
        aces = iter(self.aces)
        return [
            deep if source is None else next(aces)(shallow[source]) + deep
            for source, deep in zip(self.ace_sources, deep_N, strict=True)
        ]


def _pooled_mean(maps_N: list[Tensor]) -> Tensor:
    """Return GAP(mean_n D_n), [B, C], at least float32; pooling first is the same and cheaper."""
    pooled_NBC = torch.stack([maps_BCHW.mean(dim=(2, 3)) for maps_BCHW in maps_N])
    return at_least_float32(pooled_NBC).mean(dim=0)
