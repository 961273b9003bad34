"""What a study has shown so far: receipts, losses and counts, round by round; becomes `result.json`.

Sites evaluate weights when they receive them, so the counts in the replies of round R + 1 (or of the closing
evaluation) belong to the weights that round R made, and are filed there.
"""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import Any, Final

import torch

import semc
from semc.config import StudyConfig
from semc.metrics import Confusion
from semc.privacy.disclosure import DisclosedScores
from semc.reporting import RoundResult, SiteResult, StudyResult
from semc.reporting.privacy_statement import PrivacyStatement
from semc.reporting.result import DisclosedRates, Outcome
from server.inbound import CheckedReply
from server.receipts import RoundReceipt, SiteState
from server.registry import Registry

_ALWAYS_LOCAL: Final = (
    "images, labels, file names and patient identifiers",
    "class counts of the training images",
    "memory queue of embeddings",
    "optimiser state",
)
_PRIVATE_LOCAL: Final = (
    "images, labels, file names and patient identifiers",
    "number of training images (unless it was told at enrolment) and of patients, class counts, training loss",
    "gradients before clipping and noise, and the secret random numbers that choose patients and make noise",
    "optimiser state",
    "confusion counts, and the rates of classes with too few test patients",
    "the privacy ledger (its head leaves) and the hospital's policy",
)
_BN_LOCAL: Final[dict[str, tuple[str, ...]]] = {
    "average": (),
    "frozen": (),
    "silo": ("batch-norm running statistics",),
    "fedbn": ("batch-norm running statistics", "batch-norm gamma and beta"),
}


@dataclass(frozen=True)
class Scores:
    """Macro-F1 of one round's weights over the sites that measured it."""

    mean: float
    worst: float
    worst_site: str


@dataclass
class History:
    """Grows with the study; one per run."""

    study: StudyConfig
    registry: Registry
    rounds: list[RoundResult] = field(default_factory=list)
    complete: bool = True
    """Whether every named site was in, in every exchange so far."""
    _losses: dict[int, dict[str, float]] = field(default_factory=dict)
    _heads: dict[int, dict[str, str]] = field(default_factory=dict)
    _disclosed: dict[str, DisclosedScores] = field(default_factory=dict)

    def add_reply(self, round_number: int, reply: CheckedReply) -> None:
        """File a training reply of a round: its loss here, its counts under the round before."""
        if reply.metrics.train_loss is not None:
            self._losses.setdefault(round_number, {})[reply.site] = reply.metrics.train_loss
        if reply.ledger_head is not None:
            self._heads.setdefault(round_number, {})[reply.site] = reply.ledger_head
        self._add_counts(round_number - 1, reply)

    def add_closing(self, reply: CheckedReply) -> None:
        """File a reply to the closing evaluation: counts, or in mode patient_dp rates, of the last round's weights."""
        if reply.metrics.disclosed is not None:
            self._disclosed[reply.site] = reply.metrics.disclosed
        self._add_counts(len(self.rounds), reply)

    def _add_counts(self, round_number: int, reply: CheckedReply) -> None:
        """File a site's confusion counts of the weights that a round made; round 0 is the untrained model."""
        if not 1 <= round_number <= len(self.rounds):
            return
        filed = self.rounds[round_number - 1]
        validation, test = dict(filed.validation), dict(filed.test)
        if reply.metrics.validation is not None:
            validation[reply.site] = reply.metrics.validation.to_list()
        if reply.metrics.test is not None:
            test[reply.site] = reply.metrics.test.to_list()
        self.rounds[round_number - 1] = filed.model_copy(update={"validation": validation, "test": test})

    def add_round(self, receipt: RoundReceipt, seconds: float) -> None:
        """Close a round."""
        self.note(receipt)
        self.rounds.append(
            RoundResult(
                round=receipt.round_number,
                seconds=seconds,
                receipts={site: entry.state.value for site, entry in receipt.sites.items()},
                reasons={
                    site: str(entry.reason)
                    for site, entry in receipt.sites.items()
                    if entry.state is not SiteState.IN
                },
                train_loss=dict(sorted(self._losses.pop(receipt.round_number, {}).items())),
                ledger_heads=dict(sorted(self._heads.pop(receipt.round_number, {}).items())),
            )
        )

    def note(self, receipt: RoundReceipt) -> None:
        """Remember whether a named site was missing."""
        self.complete = self.complete and receipt.complete

    def scores(self, round_number: int) -> Scores | None:
        """Return macro-F1 of a round's weights on validation images (test, where a site has none).

        In mode patient_dp only the last round's weights have scores: the rates told of test patients.
        """
        if not 1 <= round_number <= len(self.rounds):
            return None
        filed = self.rounds[round_number - 1]
        by_site: dict[str, float] = {}
        if round_number == len(self.rounds):
            by_site |= {site: rates.macro_f1 for site, rates in self._disclosed.items()}
        for site in sorted({*filed.validation, *filed.test}):
            counts = filed.validation.get(site) or filed.test[site]
            score = Confusion.from_list(counts, len(self.study.data.classes)).macro_f1
            if score is not None:
                by_site[site] = score
        if not by_site:
            return None
        worst = min(by_site, key=lambda site: (by_site[site], site))
        return Scores(sum(by_site.values()) / len(by_site), by_site[worst], worst)

    def result(
        self,
        outcome: Outcome,
        final_weights_sha256: str,
        seconds: float,
        guarantee: PrivacyStatement | None,
    ) -> StudyResult:
        """Return the study as it stands."""
        study, private = self.study, self.study.privacy.private
        last = self.rounds[-1].test if self.rounds else {}
        return StudyResult(
            study_name=study.name,
            description=study.description,
            digest=study.digest(),
            seed=study.seed,
            classes=list(study.data.classes),
            settings=study.model_dump(mode="json"),
            privacy=study.privacy.mode,
            guarantee=guarantee,
            outcome=outcome,
            bn=study.federation.bn,
            what_is_local=[*(_PRIVATE_LOCAL if private else _ALWAYS_LOCAL), *_BN_LOCAL[study.federation.bn]],
            rounds=list(self.rounds),
            sites=[
                SiteResult(
                    site=site,
                    num_train_examples=None if private else self.registry.sites[site].num_examples,
                    test_confusion=last.get(site),
                    disclosed=DisclosedRates(**asdict(rates))
                    if (rates := self._disclosed.get(site))
                    else None,
                )
                for site in study.federation.sites
            ],
            final_weights_sha256=final_weights_sha256,
            seconds=seconds,
            software={
                "semc": semc.__version__,
                "flwr": version("flwr"),
                "torch": str(torch.__version__),
                "python": platform.python_version(),
            },
        )

    def to_json(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it."""
        return {
            "rounds": [entry.model_dump(mode="json") for entry in self.rounds],
            "complete": self.complete,
        }
