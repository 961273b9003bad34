"""The study's `federation:` section: who takes part and how their updates are combined."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, model_validator

from semc.config.section import Section
from semc.config.site import SiteName

_FEDADAM_STEP: Final = 3e-3


class FederationConfig(Section):
    """Named sites, rounds, deadline, quorum and the aggregation rule."""

    sites: tuple[SiteName, ...] = Field(min_length=1)
    """Names of the hospitals in the study; nobody else is asked."""
    rounds: int = Field(default=10, ge=1, le=10_000)
    """Federated rounds."""
    quorum: int | None = Field(default=None, ge=1)
    """Fewest sites whose update makes a round valid; default: all named sites."""
    deadline_seconds: float = Field(default=3600.0, gt=0)
    """Longest wait for the reply of any site in one round, seconds; the wait of every site before its first reply."""
    deadline_floor_seconds: float = Field(default=300.0, gt=0)
    """Shortest wait for a site that is known to be fast, seconds: long enough for a restart, a broken line, a repeated
    round. Without effect above `deadline_seconds`."""
    deadline_factor: float = Field(default=3.0, ge=1)
    """A site is waited for this many times as long as its slowest of its last five replies."""
    retries: int = Field(default=2, ge=0, le=10)
    """How often a site is sent a round's message again that was lost on the way or at the site."""
    join_timeout_seconds: float = Field(default=600.0, gt=0)
    """Longest wait for the sites to come online before the first round, seconds."""
    checkpoints_kept: int = Field(default=3, ge=2)
    """Newest checkpoints the coordinator keeps, beside the best by validation; a damaged one is passed over for the one
    before it."""
    algorithm: Literal["fedavg", "fedprox", "fedavgm", "fedadam"] = "fedavg"
    """Server rule; fedprox adds the proximal term at the sites."""
    proximal_mu: float = Field(default=0.0, ge=0, le=10)
    """mu of FedProx; batch norm and queue are excluded from the term."""
    server_learning_rate: float = Field(default=1.0, gt=0, le=10)
    """Step of FedAvgM and FedAdam on the averaged update; default under fedadam 0.003: its steps have about this
    size in every weight, whatever the update's."""
    server_momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of FedAvgM, beta_1 of FedAdam."""
    server_beta2: float = Field(default=0.99, ge=0, lt=1)
    """beta_2 of FedAdam."""
    server_tau: float = Field(default=1e-3, gt=0)
    """Adaptivity floor of FedAdam."""
    weight: Literal["n", "sqrt_n", "uniform"] = "n"
    """Weight of a site, from its enrolment record, never from a reply."""
    bn: Literal["silo", "fedbn", "average", "frozen"] = "silo"
    """What stays local: silo = batch-norm statistics, fedbn = statistics and gamma/beta, average = nothing.
    frozen (with patient_dp) = statistics come with the weights, are public, and no site changes them."""
    bn_statistics: Literal["reestimated", "running"] = "reestimated"
    """Local statistics with which a site judges incoming weights: measured anew on its training images, or those its
    own last training left. Without effect where they are averaged."""
    evaluate_every: int = Field(default=1, ge=1)
    """Rounds from one evaluation at the sites to the next; more saves time in long studies. The last weights are
    always evaluated."""
    wire_dtype: Literal["fp32", "bf16"] = "fp32"
    """Precision of tensors on the wire; aggregation is always in float64."""

    @model_validator(mode="before")
    @classmethod
    def _adaptive_steps_are_small(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("algorithm") == "fedadam":
            return {"server_learning_rate": _FEDADAM_STEP, **values}
        return values

    @model_validator(mode="after")
    def _consistent(self) -> FederationConfig:
        if len(set(self.sites)) != len(self.sites):
            raise ValueError("site names must be unique")
        if self.quorum is not None and self.quorum > len(self.sites):
            raise ValueError("quorum is larger than the number of sites")
        if self.algorithm == "fedprox" and self.proximal_mu == 0:
            raise ValueError("fedprox needs proximal_mu > 0")
        if self.algorithm != "fedprox" and self.proximal_mu > 0:
            raise ValueError("proximal_mu > 0 needs algorithm fedprox")
        return self

    @property
    def effective_quorum(self) -> int:
        """Fewest sites that make a round valid."""
        return self.quorum if self.quorum is not None else len(self.sites)
