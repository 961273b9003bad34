"""What a study has shown so far: receipts, losses and counts, round by round; becomes `result.json`.

Sites evaluate weights when they receive them, so the counts in the replies of round R + 1 (or of the closing
evaluation) belong to the weights that round R made, and are filed there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from semc.config import StudyConfig
from semc.exit_codes import ExitCode, SemcError
from semc.metrics import Confusion
from semc.privacy.disclosure import DisclosedScores
from semc.reporting import RoundResult, SiteResult, StudyResult
from semc.reporting.privacy_statement import PrivacyStatement
from semc.reporting.receipt import SignedReceipt
from semc.reporting.result import DisclosedRates, Outcome
from server.receipts import RoundReceipt, SiteState
from server.registry import Registry
from server.round_checkpoint import software
from server.site_metrics import SiteMetrics

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


@dataclass(frozen=True)
class Answer:
    """What a site said beside its tensors."""

    metrics: SiteMetrics
    ledger_head: str | None = None


@dataclass
class History:
    """Grows with the study; one per run."""

    study: StudyConfig
    registry: Registry
    rounds: list[RoundResult] = field(default_factory=list)
    receipts: list[SignedReceipt] = field(default_factory=list)
    seconds_before: float = 0.0
    """Wall time of the rounds of earlier processes."""
    _disclosed: dict[str, DisclosedScores] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every named site was in, in every exchange so far."""
        return all(receipt.complete for receipt in self.receipts)

    def add_round(self, receipt: RoundReceipt, answers: Mapping[str, Answer], seconds: float) -> None:
        """File a round: its losses here, the counts of the weights it began with under the round before.

        Args:
            receipt: Every named site's part.
            answers: What those who are in said, by site.
            seconds: Wall time of the round.
        """
        number = receipt.round_number
        self._add_counts(number - 1, answers)
        missing = {site: entry for site, entry in receipt.sites.items() if entry.state is not SiteState.IN}
        self.rounds.append(
            RoundResult(
                round=number,
                seconds=seconds,
                receipts={site: entry.state.value for site, entry in receipt.sites.items()},
                reasons={site: str(entry.reason) for site, entry in missing.items()},
                stages={site: str(entry.stage) for site, entry in missing.items()},
                train_loss={
                    site: loss
                    for site, answer in answers.items()
                    if (loss := answer.metrics.train_loss) is not None
                },
                ledger_heads={
                    site: head for site, answer in answers.items() if (head := answer.ledger_head) is not None
                },
            )
        )

    def add_closing(self, answers: Mapping[str, Answer]) -> None:
        """File the closing evaluation: counts, or in mode patient_dp rates, of the last round's weights."""
        self._disclosed = {
            site: rates for site, answer in answers.items() if (rates := answer.metrics.disclosed) is not None
        }
        self._add_counts(len(self.rounds), answers)

    def _add_counts(self, round_number: int, answers: Mapping[str, Answer]) -> None:
        """File sites' confusion counts of the weights that a round made; round 0 is the untrained model."""
        if not 1 <= round_number <= len(self.rounds):
            return
        filed = self.rounds[round_number - 1]
        validation, test = dict(filed.validation), dict(filed.test)
        for site, answer in answers.items():
            if answer.metrics.validation is not None:
                validation[site] = answer.metrics.validation.to_list()
            if answer.metrics.test is not None:
                test[site] = answer.metrics.test.to_list()
        self.rounds[round_number - 1] = filed.model_copy(update={"validation": validation, "test": test})

    @property
    def best_round(self) -> int | None:
        """The round whose weights have the best mean macro-F1 on validation images; None while no site told any."""
        means: dict[int, float] = {}
        for filed in self.rounds:
            scores = [
                score
                for counts in filed.validation.values()
                if (score := Confusion.from_list(counts, len(self.study.data.classes)).macro_f1) is not None
            ]
            if scores:
                means[filed.round] = sum(scores) / len(scores)
        return max(means, key=lambda number: (means[number], number)) if means else None

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
        public_key: str,
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
            best_round=self.best_round,
            software=software(),
            signed_receipts=list(self.receipts),
            receipts_public_key=public_key,
        )

    def to_json(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it beside the receipts."""
        return {"rounds": [entry.model_dump(mode="json") for entry in self.rounds]}

    def restore(self, saved: Mapping[str, Any], receipts: Iterable[SignedReceipt]) -> None:
        """Go on from what a checkpoint kept.

        Raises:
            SemcError: CHECKPOINT_INVALID where it has not the form of this version.
        """
        try:
            self.rounds = [RoundResult.model_validate(entry) for entry in saved["rounds"]]
        except (KeyError, TypeError, ValidationError) as error:
            raise SemcError(
                ExitCode.CHECKPOINT_INVALID,
                "The history in the checkpoint has another form.",
                "go on with the version that wrote it, or run the study anew",
            ) from error
        self.receipts = list(receipts)
        self.seconds_before = sum(filed.seconds for filed in self.rounds)
