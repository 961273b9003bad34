"""The entries of a site's privacy ledger: what happened, never an epsilon, each bound to the one before it.

Epsilon is a replay of the entries: a better bound, or a corrected one, applies to the past too. An entry of an unknown
kind, mechanism, accountant or version is refused, because nobody can say what it cost.
"""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter

from semc.privacy.accounting import Mechanism

NO_PREVIOUS: Final = "0" * 64
"""What the first entry names as the hash before it."""

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
StudyDigest = Annotated[str, Field(pattern=r"^[0-9a-f]{16,64}$")]
"""A study's digest, or its first 16 digits where only a folder's name is left of it."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    version: Literal[1] = 1
    seq: int = Field(ge=1)
    """Place in the ledger, from 1 on, without gaps."""
    at: AwareDatetime
    """UTC, by the site's clock."""
    previous: Sha256
    """Hash of the entry before."""


class Created(_Entry):
    """The ledger was made: the promise that holds for ever after."""

    kind: Literal["create"] = "create"
    ledger: str = Field(pattern=r"^[0-9a-f]{32}$")
    """Random name of this ledger; the anchor bears it too."""
    site: str
    unit: Literal["patient"] = "patient"
    accountant: Literal["rdp"] = "rdp"
    patients: int = Field(ge=2)
    """Public lower bound on the training patients on that day."""
    delta: float = Field(gt=0, lt=0.1)
    epsilon_total: float = Field(gt=0)


class _Charge(_Entry):
    """A round that a study asked for."""

    study_digest: Sha256
    round_number: int = Field(ge=0)
    incoming_sha256: Sha256
    """Of the weights the round starts from."""
    mechanism: Literal["poisson-subsampled-gaussian"] = "poisson-subsampled-gaussian"
    noise_multiplier: float = Field(gt=0)
    sampling_rate: float = Field(gt=0, le=1)
    steps: int = Field(ge=1)
    unit: Literal["patient"] = "patient"
    accountant: Literal["rdp"] = "rdp"
    accountant_version: str
    """Of Opacus, which computed the bound on that day."""

    def cost(self) -> Mechanism:
        """Return what this round does to a patient's privacy."""
        return Mechanism(self.noise_multiplier, self.sampling_rate, self.steps)


class Reserve(_Charge):
    """A round was charged, before its data were opened; it counts whatever became of it."""

    kind: Literal["reserve"] = "reserve"


class Refuse(_Charge):
    """A round was refused and nothing was opened; it costs nothing."""

    kind: Literal["refuse"] = "refuse"
    over: Literal["total", "study"]
    """Whose limit it would have broken: the hospital's for everything, or this study's."""


class Commit(_Entry):
    """A reserved round's answer was made; a note, without influence on what is spent."""

    kind: Literal["commit"] = "commit"
    reservation: int = Field(ge=1)
    """`seq` of the reserve entry."""
    outgoing_sha256: Sha256


class Evaluate(_Entry):
    """Rates of the test patients were measured for a study; it costs no epsilon, but such answers are counted."""

    kind: Literal["evaluate"] = "evaluate"
    study_digest: Sha256
    incoming_sha256: Sha256
    """Of the weights that were measured."""


class Unprotected(_Entry):
    """A study without patient-level privacy was trained on this hospital's images: no bound covers it."""

    kind: Literal["unprotected"] = "unprotected"
    study_digest: StudyDigest


class Close(_Entry):
    """The ledger was closed for good."""

    kind: Literal["close"] = "close"
    reason: str = Field(min_length=1, max_length=200)


Event = Created | Reserve | Refuse | Commit | Evaluate | Unprotected | Close

_EVENT: Final[TypeAdapter[Event]] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def parse_event(body: str) -> Event:
    """Return the entry of a canonical text.

    Raises:
        ValueError: A field, kind, mechanism or version is not one of ours.
    """
    return _EVENT.validate_json(body)


def canonical(event: Event) -> str:
    """Return an entry's canonical JSON: sorted keys, no spaces."""
    return json.dumps(event.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def entry_hash(previous: str, body: str) -> str:
    """Return SHA-256 (hex) over the hash before and the entry's canonical text."""
    return hashlib.sha256(f"{previous}{body}".encode()).hexdigest()
