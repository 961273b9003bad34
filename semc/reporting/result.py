"""What a finished study is: the content of `result.json`, from which every table, curve and report is made.

Only counts are stored; scores are computed from them where they are shown, so a report can never disagree
with its own confusion matrices. In mode patient_dp sites tell no counts, and their rates are stored as told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from semc.exit_codes import ExitCode
from semc.metrics import Confusion
from semc.reporting.privacy_statement import PrivacyStatement
from semc.reporting.receipt import SignedReceipt

Outcome = Literal["complete", "complete_on_subset", "quorum_lost", "failed"]

OUTCOME_EXIT_CODES: Final[Mapping[Outcome, ExitCode]] = {
    "complete": ExitCode.OK,
    "complete_on_subset": ExitCode.COMPLETE_ON_SUBSET,
    "quorum_lost": ExitCode.QUORUM_LOST,
    "failed": ExitCode.RUN_FAILED,
}
"""How a run ended, and the exit status that says so."""
OUTCOMES: Final[Mapping[Outcome, str]] = {
    "complete": "Complete: every named hospital took part in every round.",
    "complete_on_subset": "Complete on a subset: in some round a named hospital did not take part.",
    "quorum_lost": "Stopped: a round had fewer hospitals than its quorum. Reported is what was reached.",
    "failed": "Failed: the study did not reach its end. Reported is what was reached.",
}
"""The same in words; stands wherever a run's figures stand."""


class _Record(BaseModel):
    """An immutable part of a result that refuses unknown keys and numbers that are not finite."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


class RoundResult(_Record):
    """One round: who took part, and how good the weights it produced are at each site."""

    round: int = Field(ge=1)
    """Number of the round, from 1."""
    seconds: float = Field(ge=0)
    """Wall time of the round."""
    receipts: dict[str, str]
    """Site to its state: in | late | dropped | declined | failed | refused."""
    reasons: dict[str, str] = {}
    """Site to why, where it was not in."""
    stages: dict[str, str] = {}
    """Site to where it was lost, where it was not in: join | send | train | evaluate | upload | check."""
    validation: dict[str, list[int]] = {}
    """Site to the confusion (row-major counts) of THIS round's aggregated weights on its validation images.

    A site measures weights when it receives them, so these counts arrive with the next round's reply, those
    of the last round with the closing evaluation; they are filed under the round that made the weights."""
    test: dict[str, list[int]] = {}
    """The same on its test images; never used to choose anything."""
    train_loss: dict[str, float] = {}
    """Site to the mean loss of its training steps in this round."""
    ledger_heads: dict[str, str] = {}
    """Mode patient_dp: site to the SHA-256 of the last entry of its privacy ledger when it answered."""


class DisclosedRates(_Record):
    """What a site told of its test patients in mode patient_dp: rates over the classes it may show."""

    accuracy: float = Field(ge=0, le=1)
    balanced_accuracy: float = Field(ge=0, le=1)
    macro_f1: float = Field(ge=0, le=1)
    recall: list[Annotated[float, Field(ge=0, le=1)] | None]
    """Of each class; None = suppressed: fewer patients than the site's least cell, none included."""


class SiteResult(_Record):
    """One hospital at the end of the study."""

    site: str
    num_train_examples: int | None = Field(ge=0)
    """Training images, from the enrolment record; None in mode patient_dp, which names no count."""
    test_confusion: list[int] | None = None
    """Final federation model on the site's test images; None where the site did not answer, and in patient_dp."""
    disclosed: DisclosedRates | None = None
    """Mode patient_dp: the final model's rates; None where the site did not answer or too few patients stand behind
    them."""
    local_only_confusion: list[int] | None = None
    """A model trained at this site alone with the same budget; None where that arm was not run."""
    sample_images: list[str] = []
    """Base64 PNG images, filled by demonstrations on this machine only; a server never has any."""


class StudyResult(_Record):
    """The whole study."""

    study_name: str
    description: str = ""
    """One sentence from the study file."""
    digest: str
    """Digest of the study: which settings, protocol and Flower version."""
    seed: int
    classes: list[str] = Field(min_length=2)
    """Class names in the order of the confusion matrices."""
    settings: dict[str, Any] = {}
    """The resolved study, section by section (`study.model_dump(mode="json")`)."""
    privacy: Literal["none", "patient_dp"]
    """none = no formal guarantee."""
    guarantee: PrivacyStatement | None = None
    """Mode patient_dp: what is promised to every patient."""
    outcome: Outcome
    bn: Literal["silo", "fedbn", "average", "frozen"]
    """Batch-norm mode."""
    what_is_local: list[str]
    """What never left a site, in words."""
    rounds: list[RoundResult]
    signed_receipts: list[SignedReceipt] = []
    """Who took part in every round and in the closing evaluation, signed by the coordinator; oldest first."""
    receipts_public_key: str = ""
    """Public half (base64) of the key that signed them; a verifier trusts only one it knows from elsewhere."""
    sites: list[SiteResult]
    best_round: int | None = Field(default=None, ge=1)
    """The round whose weights have the best mean macro-F1 on validation images; None where no site told any."""
    final_weights_sha256: str
    """SHA-256 of the final shared tensors as sent."""
    seconds: float = Field(ge=0)
    """Wall time of the study."""
    software: dict[str, str]
    """Package to version."""

    @model_validator(mode="after")
    def _promises_what_its_mode_does(self) -> StudyResult:
        if (self.privacy == "patient_dp") != (self.guarantee is not None):
            raise ValueError("a guarantee belongs to mode patient_dp, and that mode has one")
        if any(site.disclosed is not None for site in self.sites) and self.privacy == "none":
            raise ValueError("disclosed rates belong to mode patient_dp")
        return self

    @model_validator(mode="after")
    def _counts_fit_classes(self) -> StudyResult:
        lists = [
            counts
            for item in self.rounds
            for part in (item.validation, item.test)
            for counts in part.values()
        ]
        lists += [
            counts
            for site in self.sites
            for counts in (site.test_confusion, site.local_only_confusion)
            if counts
        ]
        if any(len(counts) != len(self.classes) ** 2 for counts in lists):
            raise ValueError("a confusion matrix has another number of classes than the study")
        told = [site.disclosed.recall for site in self.sites if site.disclosed is not None]
        if any(len(recall) != len(self.classes) for recall in told):
            raise ValueError("there is not one recall per class of the study")
        return self

    def exit_code(self) -> ExitCode:
        """Return the exit status of a program that ends with this result."""
        return OUTCOME_EXIT_CODES[self.outcome]

    def confusion(self, counts: Sequence[int] | None) -> Confusion | None:
        """Return one of this result's count lists as a matrix, None where it is absent."""
        return Confusion.from_list(counts, len(self.classes)) if counts is not None else None

    def with_local_only(self, confusions: Mapping[str, Confusion]) -> StudyResult:
        """Return a copy holding the test confusion of each site's model trained alone."""
        return self._with_sites(
            {name: {"local_only_confusion": c.to_list()} for name, c in confusions.items()}
        )

    def with_sample_images(self, images: Mapping[str, list[str]]) -> StudyResult:
        """Return a copy holding sample images (base64 PNG) of each site."""
        return self._with_sites({name: {"sample_images": samples} for name, samples in images.items()})

    def with_seconds(self, seconds: float) -> StudyResult:
        """Return a copy with another wall time."""
        return self.model_copy(update={"seconds": seconds})

    def _with_sites(self, changes: Mapping[str, dict[str, Any]]) -> StudyResult:
        sites = [site.model_copy(update=changes.get(site.site, {})) for site in self.sites]
        return StudyResult.model_validate({**dict(self), "sites": sites})
