"""The study's `model:` section: every architectural switch of SEMC (equations 1-10, 16-17)."""

from __future__ import annotations

import re
from typing import Final, Literal

from pydantic import Field, field_validator, model_validator

from semc.config.section import Section

_FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def is_file_name(text: str) -> bool:
    """Tell whether a text names a file of a folder chosen elsewhere, and cannot lead out of it."""
    return bool(_FILE_NAME.fullmatch(text)) and ".." not in text


class ModelConfig(Section):
    """Architecture of the network; a disabled part leaves no parameters behind."""

    backbone: Literal["tiny", "small", "resnet18", "resnet34", "resnet50"] = "resnet50"
    """ResNet whose stem and stages 1-3 are shared and whose stage 4 is copied per expert (eq. 1-4); tiny = one
    block per stage, 16 to 128 channels, for rehearsals of everything but accuracy; small = one block per stage, 32 to
    256 channels, for studies of many runs without a GPU."""
    weights: str = "none"
    """none | torchvision (a file already in torch's hub cache, never downloaded) | bare name of a state dict file in
    the folder that each site (`weights_directory`) and the coordinator (SEMC_WEIGHTS_DIRECTORY) chose itself."""
    weights_sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Required when `weights` names a file: its SHA-256, checked before it is parsed."""
    experts: int = Field(default=3, ge=1, le=4)
    """Number of experts N; expert n is paired with shallow feature F_n, a fourth has no ACE."""
    expert_init: Literal["pretrained", "random"] = "random"
    """pretrained = stage 4 of the weights copied to each expert plus 1e-3 noise."""
    ace: bool = True
    """Align shallow features to expert size (eq. 5-6); off: M_n = D_n."""
    ace_activation: Literal["relu", "leaky_relu"] = "relu"
    """Activation inside ACE; leaky_relu has slope 0.2."""
    ace_stage_activation: bool = False
    """Activation after each stage's second batch norm."""
    ace_out_activation: bool = True
    """Activation after the output projection (eq. 6)."""
    ace_init: Literal["framework", "normal"] = "framework"
    """normal = conv N(0, 0.02), batch norm 1/0."""
    samc: bool = True
    """Structure-aware multi-context refinement (eq. 8-10); off: O_n = M_n."""
    samc_expansion: int = Field(default=6, ge=1, le=8)
    """Inverted-bottleneck expansion e."""
    samc_fuse: Literal["sum", "concat"] = "sum"
    """How the three depthwise branches are joined."""
    samc_residual: bool = True
    """Add the attended input back (eq. 10, sum form)."""
    samc_shared: bool = True
    """One SAMC for all experts, or one each."""
    samc_bn: Literal["shared", "per_expert"] = "per_expert"
    """Batch norms of SAMC and projection: one distribution or one per expert."""
    gate: Literal["gumbel", "softmax", "mean"] = "gumbel"
    """Expert weighting (eq. 16-17): Gumbel noise in training only, none, or w = 1/N."""
    gate_input: Literal["deep_mean", "fused_mean"] = "deep_mean"
    """deep_mean = GAP of mean_n D_n; fused_mean = GAP of mean_n O_n."""
    gate_trained: bool = True
    """False freezes the router (preset reference)."""
    gate_temperature: float = Field(default=1.0, gt=0, le=10)
    """Gumbel-softmax temperature at the start of the study."""
    gate_temperature_end: float = Field(default=0.5, gt=0, le=10)
    """Temperature at the end; interpolated linearly over the study."""
    gate_eval: Literal["softmax", "sampled_mean", "hard"] = "softmax"
    """Evaluation: noiseless softmax, mean over seeded Gumbel draws, or top-1."""
    gate_eval_draws: int = Field(default=16, ge=1, le=256)
    """Draws of sampled_mean."""
    embedding_dim: int = Field(default=128, ge=8, le=1024)
    """Width D of the projection's unit-norm embeddings."""
    norm: Literal["batch", "group"] = "batch"
    """batch = batch norm, as in the paper; group = group norm (layer norm in the projection), which couples no
    images."""
    adapter_width: int = Field(default=0, ge=0, le=512)
    """Hidden width of the residual adapter behind each expert's refined maps; 0 = none."""

    @field_validator("weights")
    @classmethod
    def _weights_are_no_path(cls, weights: str) -> str:
        # The study comes from the coordinator: a path in it would choose what is opened at the hospital.
        if not is_file_name(weights):
            raise ValueError(
                "none, torchvision or a bare file name (letters, digits, '.', '_', '-'), no path"
            )
        return weights

    @model_validator(mode="after")
    def _weights_need_a_hash(self) -> ModelConfig:
        if self.weights not in ("none", "torchvision") and self.weights_sha256 is None:
            raise ValueError("weights given by file name need weights_sha256")
        if self.backbone in ("tiny", "small") and self.weights != "none":
            raise ValueError(f"there are no pretrained weights for backbone {self.backbone}")
        if self.weights == "none" and self.expert_init == "pretrained":
            raise ValueError("expert_init pretrained needs weights")
        if self.norm == "group" and self.weights != "none":
            raise ValueError("norm group has no use for weights that were trained with batch norm")
        return self
