"""Who took part in which round, so that it can be proved afterwards: receipts in a chain, each signed.

A receipt holds the hash of the one before it, so none can be taken out, put in or moved; and the coordinator's
signature over the whole, so that nobody without its key can make the chain anew. What a chain cannot show is that its
end was cut off: for that a verifier must know its length or its last hash from somewhere else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field, model_validator

from semc.exit_codes import ExitCode, SemcError

State = Literal["in", "late", "dropped", "declined", "failed", "refused"]
Stage = Literal["", "join", "send", "train", "evaluate", "upload", "check"]
Kind = Literal["train", "evaluate"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Sha256OrNone = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]

_SIGNATURE: Final = "signature"
_WHAT_NOW: Final = (
    "report it to the coordinating centre; a copy of the run from before the change tells what it was"
)


class _Record(BaseModel):
    """An immutable record that refuses unknown keys and numbers that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class SiteReceipt(_Record):
    """One site's part in one round."""

    state: State
    stage: Stage = ""
    """Where it was lost; empty where it is in."""
    reason: str = ""
    """Its code (a server's Reason or a RefusalCode); empty where it is in."""
    weight: float | None = Field(default=None, ge=0)
    """Its weight in the round's mean, before normalisation; None where it is not in, and in an evaluation."""
    payload_sha256: Sha256OrNone = ""
    """SHA-256 of the weights it sent; empty where it sent none."""
    seconds: float | None = Field(default=None, ge=0)
    """From the message sent to the reply's arrival; None where no reply came."""
    attempts: int = Field(default=0, ge=0)
    """Messages sent to it in this round."""

    @model_validator(mode="after")
    def _says_why(self) -> SiteReceipt:
        if self.state == "in" and (self.stage or self.reason):
            raise ValueError("a site that is in was lost at no stage and for no reason")
        if self.state != "in" and not (self.stage and self.reason):
            raise ValueError("a site that is not in has a stage and a reason")
        if self.state != "in" and self.weight is not None:
            raise ValueError("a site that is not in has no weight")
        return self


class SignedReceipt(_Record):
    """Every named site's part in one round, signed by the coordinator."""

    study_digest: Sha256
    run: Annotated[str, Field(min_length=1)]
    """Name of the run folder."""
    round: int = Field(ge=1)
    """From 1; the closing evaluation is one more than the study's rounds."""
    kind: Kind
    sites: dict[str, SiteReceipt]
    """Every named site."""
    incoming_sha256: Sha256
    """SHA-256 of the shared weights that were sent to the sites, as sent."""
    outgoing_sha256: Sha256OrNone
    """SHA-256 of the shared weights this round made, as they are sent next; empty where it made none: an evaluation, or
    a round below its quorum."""
    previous: Sha256OrNone
    """:meth:`sha256` of the receipt before; empty for the first."""
    signature: str
    """Ed25519 over :meth:`signed_bytes`, in base64."""

    def signed_bytes(self) -> bytes:
        """Return what the signature is over: every other field as canonical JSON."""
        return canonical(self, leave_out=frozenset({_SIGNATURE}))

    def sha256(self) -> str:
        """Return the hash by which the next receipt names this one, signature included."""
        return hashlib.sha256(canonical(self)).hexdigest()

    @property
    def complete(self) -> bool:
        """Whether every named site is in."""
        return all(site.state == "in" for site in self.sites.values())

    @property
    def title(self) -> str:
        """`round 3`, or `round 11, the closing evaluation`."""
        return f"round {self.round}" + (", the closing evaluation" if self.kind == "evaluate" else "")


def canonical(record: BaseModel, leave_out: frozenset[str] = frozenset()) -> bytes:
    """Return a record as JSON that is the same wherever it is made: sorted keys, shortest floats, ASCII, no NaN."""
    content = record.model_dump(mode="json", exclude=set(leave_out))
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def read_public_key(text: str) -> Ed25519PublicKey:
    """Return the coordinator's public key from its base64 text.

    Raises:
        SemcError: KEY_INVALID.
    """
    try:
        return Ed25519PublicKey.from_public_bytes(_decoded(text))
    except ValueError as error:
        raise SemcError(
            ExitCode.KEY_INVALID,
            "The public key is not one that signs receipts.",
            "give the 44 characters that the coordinator shows for it",
        ) from error


def key_fingerprint(public_key: str) -> str:
    """Return a public key's SHA-256 as `SHA256:...`, to be compared by telephone.

    Raises:
        SemcError: KEY_INVALID.
    """
    raw = read_public_key(public_key).public_bytes_raw()
    return "SHA256:" + base64.b64encode(hashlib.sha256(raw).digest()).decode().rstrip("=")


def verify_chain(
    receipts: Sequence[SignedReceipt],
    public_key: str,
    *,
    study_digest: str | None = None,
    run: str | None = None,
    count: int | None = None,
    head: str | None = None,
) -> None:
    """Check that receipts are exactly those one coordinator signed in one run, from the first on.

    Args:
        receipts: As they were found, oldest first.
        public_key: The coordinator's, base64, from a source that is trusted.
        study_digest: Of the study they must belong to; by default the first receipt's.
        run: Name of the run they must belong to; by default the first receipt's.
        count: How many there must be at least, known from elsewhere.
        head: :meth:`SignedReceipt.sha256` of a receipt that must be among them, known from elsewhere.

    Raises:
        SemcError: CHECKPOINT_INVALID naming the first receipt that is not as it was signed; KEY_INVALID.
    """
    key = read_public_key(public_key)
    before: SignedReceipt | None = None
    for number, receipt in enumerate(receipts, start=1):
        problem = _problem(receipt, before, key, study_digest, run)
        if problem:
            raise changed(f"Receipt {number} ({receipt.title}) {problem}.")
        before = receipt
    if count is not None and len(receipts) < count:
        raise changed(f"Receipt {len(receipts) + 1} is missing: there are {len(receipts)} of {count}.")
    if head is not None and head not in [receipt.sha256() for receipt in receipts]:
        raise changed(f"Receipts after the {len(receipts)}th are missing: the newest on record is not there.")


def _problem(
    receipt: SignedReceipt,
    before: SignedReceipt | None,
    key: Ed25519PublicKey,
    study_digest: str | None,
    run: str | None,
) -> str:
    """Return what is wrong with a receipt behind the one before it, or nothing."""
    try:
        key.verify(_decoded(receipt.signature), receipt.signed_bytes())
    except (InvalidSignature, ValueError):
        return "was changed, or signed with another key"
    first = before or receipt
    if receipt.study_digest != (study_digest or first.study_digest):
        return "is of another study"
    if receipt.run != (run or first.run):
        return "is of another run"
    if receipt.previous != (before.sha256() if before else ""):
        return "does not follow the one before: one was removed, added or moved"
    return _order_problem(receipt, before)


def _order_problem(receipt: SignedReceipt, before: SignedReceipt | None) -> str:
    """Return what is wrong with the order of rounds and weights; only a faulty coordinator signs such a thing."""
    if receipt.kind == "evaluate" and receipt.outgoing_sha256:
        return "is of an evaluation and names new weights"
    if before is None:
        return "" if receipt.round == 1 and receipt.kind == "train" else "is not of the first round"
    if before.kind == "evaluate":
        return "comes after the closing evaluation"
    # A round below its quorum made no weights; resumed, it is the same round again with the same weights.
    due, weights = (
        (before.round + 1, before.outgoing_sha256)
        if before.outgoing_sha256
        else (before.round, before.incoming_sha256)
    )
    if receipt.round != due:
        return f"is not of round {due}, which was next"
    if receipt.incoming_sha256 != weights:
        return "is of weights that the round before did not make"
    return "" if sorted(receipt.sites) == sorted(before.sites) else "names other sites"


def changed(problem: str) -> SemcError:
    """Return the error of a run whose record is not the one that was signed."""
    return SemcError(ExitCode.CHECKPOINT_INVALID, problem, _WHAT_NOW)


def _decoded(text: str) -> bytes:
    """Decode base64, refusing all but the one canonical way to write the same bytes.

    Raises:
        ValueError: Where it is anything else.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("not base64") from error
    if base64.b64encode(raw).decode() != text:
        raise ValueError("not canonical base64")
    return raw
