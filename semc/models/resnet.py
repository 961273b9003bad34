"""The baseline: a plain ResNet with one linear classifier, behind the same output as SEMCNet."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from semc.config import StudyConfig
from semc.models.backbone import Backbone, ShallowFeatures
from semc.models.layers import at_least_float32, full_precision
from semc.models.output import SEMCOutput
from semc.models.weights import part_of


class PlainResNet(nn.Module):
    """ResNet-18/34/50: one expert, no gate, no embeddings."""

    def __init__(self, study: StudyConfig) -> None:
        super().__init__()
        self.backbone = Backbone(study.model.backbone)
        self.layer4 = self.backbone.shape.build_stage(4)
        self.classifier = nn.Linear(self.backbone.shape.channels(4), len(study.data.classes))

    def forward(self, images_BCHW: Tensor) -> SEMCOutput:
        """Classify a batch of grey or colour images [B, 1 or 3, H, W]."""
        shallow: ShallowFeatures = self.backbone(images_BCHW)
        pooled_BC = at_least_float32(self.layer4(shallow.f3_BCHW).mean(dim=(2, 3)))
        with full_precision(images_BCHW):
            logits_BK: Tensor = self.classifier(pooled_BC)
        return SEMCOutput(
            logits_BK=logits_BK,
            expert_logits_NBK=logits_BK.unsqueeze(0),
            gate_weights_BN=logits_BK.new_ones(len(logits_BK), 1),
            embeddings_NBD=None,
            alpha_raw_BA=None,
        )

    def load_pretrained(self, weights: Mapping[str, Tensor], *, experts: bool) -> None:
        """Copy a ResNet's weights into the backbone and, if asked, its stage 4.

        Raises:
            SemcError: WEIGHTS_INVALID, a tensor is missing or of another shape.
        """
        self.backbone.load_state_dict(part_of(weights, self.backbone))
        if experts:
            self.layer4.load_state_dict(part_of(weights, self.layer4, "layer4."))
