"""The study's `objective:` section: what one training step minimises (equations 11-19)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from semc.config.section import Section


class ObjectiveConfig(Section):
    """SEMC's total loss and its options; `classification` is the plain ResNet baseline with cross-entropy."""

    name: Literal["semc", "classification", "semc_dp"] = "semc"
    """semc = the paper's objective on SEMCNet; classification = cross-entropy on a plain ResNet; semc_dp = patient by
    patient, for privacy.mode patient_dp."""
    mc: bool = True
    """Multi-expert contrastive loss L_mc; off: alpha = 1, projection and queue are not built."""
    mc_loss: Literal["supcon_selfcon", "gpaco"] = "supcon_selfcon"
    """L_sup + lambda L_self (eq. 13-15), or the released code's GPaCo."""
    anchors: Literal["first", "all"] = "all"
    """Anchor rows of the contrastive losses: expert 1 only, or every expert."""
    temperature: float = Field(default=0.2, gt=0, le=5)
    """tau of SupCon and GPaCo."""
    selfcon_weight: float = Field(default=0.5, ge=0, le=10)
    """lambda of eq. 15."""
    selfcon_temperature: float = Field(default=0.2, gt=0, le=5)
    """tau_s of eq. 14."""
    selfcon_neighbours: int = Field(default=0, ge=0, le=100)
    """k mined positives; 0 = only the other experts' views of the same image."""
    selfcon_threshold: float = Field(default=0.8, ge=-1, le=1)
    """theta: least cosine of a mined positive."""
    selfcon_start_fraction: float = Field(default=0.05, ge=0, le=1)
    """Share of the study after which mining starts."""
    gpaco_alpha: float = Field(default=0.05, gt=0, le=1)
    """Weight of each same-label pool row in GPaCo."""
    gpaco_beta: float = Field(default=1.0, gt=0, le=10)
    """Weight of the class logits in GPaCo."""
    gpaco_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Label smoothing of GPaCo's class target."""
    contrast_weight: float = Field(default=0.5, ge=0, le=10)
    """lambda of semc_dp: weight of the contrast against learnable class prototypes (with mc)."""
    queue: bool = True
    """Memory queue of past embeddings (eq. 11-12); off: the pool is the batch."""
    queue_size: int = Field(default=2048, ge=1, le=65536)
    """Largest number of queue slots; a site uses min(queue_size, its training images), floor 256."""
    queue_balanced: bool = False
    """One ring per class, so rare planes keep keys."""
    queue_init: Literal["empty", "reference"] = "empty"
    """empty = all rows invalid; reference = the released code's random rows and labels."""
    queue_on_update: Literal["keep", "clear", "refresh"] = "clear"
    """What happens to old keys when new global weights arrive; refresh = the newest half is encoded again from the
    site's own images, the rest is forgotten."""
    key_encoder: Literal["online", "ema"] = "online"
    """Keys from the online network, or from a local exponential moving average (m = 0.999)."""
    cross_entropy: Literal["plain", "inverse_frequency", "logit_adjusted", "fedlc"] = "logit_adjusted"
    """Class-imbalance treatment with this site's own class counts, which never leave it. Under logit_adjusted and
    fedlc a class the site lacks gets no gradient; plain and inverse_frequency push its scores down. Which is
    better where classes are rare, and where hospitals lack some, stands in RESULTS.md (E5)."""
    logit_adjustment_tau: float = Field(default=1.0, ge=0, le=4)
    """Strength of the logit adjustment (tau log pi_c), or of FedLC's margin (tau n_c^(-1/4))."""
    expert_ce_weight: float = Field(default=0.3, ge=0, le=10)
    """Weight of mean_n CE(z_n, y)."""
    importance_weight: float = Field(default=0.01, ge=0, le=10)
    """Weight of the squared coefficient of variation of the experts' importance."""
    alpha: Literal["learned", "uncertainty", "fixed", "prior", "reference"] = "uncertainty"
    """How L_moe and L_mc are weighed (eq. 19)."""
    alpha_fixed: float = Field(default=0.5, ge=0, le=1)
    """alpha of `fixed`, and alpha_0 of `prior`."""
    alpha_clamp: tuple[float, float] | None = None
    """Bounds of a learned alpha."""
    alpha_shift: bool = False
    """Use the losses minus their floor for a learned alpha."""
    alpha_prior_eta: float = Field(default=1.0, gt=0)
    """eta of `prior`."""

    @model_validator(mode="after")
    def _impossible_pairs(self) -> ObjectiveConfig:
        if self.mc and self.mc_loss == "gpaco" and self.expert_ce_weight + self.importance_weight > 0:
            raise ValueError(
                "gpaco already balances the experts: set expert_ce_weight and importance_weight to 0"
            )
        if self.alpha_clamp is not None and not 0 <= self.alpha_clamp[0] < self.alpha_clamp[1] <= 1:
            raise ValueError("alpha_clamp must be two rising numbers in [0, 1]")
        if self.key_encoder == "ema" and not self.queue:
            raise ValueError("key_encoder ema needs the queue")
        return self
