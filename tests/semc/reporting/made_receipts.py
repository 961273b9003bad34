"""A signed chain of receipts small enough to follow by hand, and a result that agrees with it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from semc.reporting import StudyResult
from semc.reporting.receipt import SignedReceipt, SiteReceipt
from semc.reporting.receipt_agreement import trained_rounds
from tests.semc.reporting.study_result import SITES, study_result

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
RUN = "three_sites-dddddddddddd-001"
IN = SiteReceipt(state="in", weight=100.0, payload_sha256="a" * 64, seconds=1.5, attempts=1)
DROPPED = SiteReceipt(state="dropped", stage="upload", reason="D_UPLOAD", attempts=3)
LATE = SiteReceipt(state="late", stage="train", reason="L_DEADLINE", attempts=1)


def public(key: Ed25519PrivateKey = KEY) -> str:
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def weights(number: int) -> str:
    """Return the hash of the weights that a round made; 0: the first ones."""
    return hashlib.sha256(f"weights {number}".encode()).hexdigest()


def signed(receipt: SignedReceipt, key: Ed25519PrivateKey = KEY, **changes: Any) -> SignedReceipt:
    """Return a receipt with fields changed and signed anew."""
    receipt = receipt.model_copy(update=changes)
    signature = base64.b64encode(key.sign(receipt.signed_bytes())).decode()
    return receipt.model_copy(update={"signature": signature})


def chain(
    rounds: int = 3,
    sites: Mapping[int, Mapping[str, SiteReceipt]] | None = None,
    *,
    closed: bool = True,
    key: Ed25519PrivateKey = KEY,
    run: str = RUN,
    digest: str = "d" * 64,
) -> list[SignedReceipt]:
    """Return the receipts of a run; everybody is in, unless `sites` says otherwise of a round."""
    made: list[SignedReceipt] = []
    for number in range(1, rounds + 1 + closed):
        closing = number > rounds
        present = IN.model_copy(update={"weight": None, "payload_sha256": ""}) if closing else IN
        made.append(
            signed(
                SignedReceipt(
                    study_digest=digest,
                    run=run,
                    round=number,
                    kind="evaluate" if closing else "train",
                    sites={**dict.fromkeys(SITES, present), **(sites or {}).get(number, {})},
                    incoming_sha256=weights(number - 1),
                    outgoing_sha256="" if closing else weights(number),
                    previous=made[-1].sha256() if made else "",
                    signature="",
                ),
                key,
            )
        )
    return made


def signed_result(receipts: Sequence[SignedReceipt] | None = None, **changes: Any) -> StudyResult:
    """Return a result as its coordinator writes it beside these receipts; `changes` are made afterwards."""
    receipts = chain() if receipts is None else list(receipts)
    plain = study_result(rounds=len(trained_rounds(receipts)))
    rounds = [
        entry.model_copy(
            update={
                "receipts": {site: found.state for site, found in receipt.sites.items()},
                "reasons": {site: found.reason for site, found in receipt.sites.items() if found.reason},
                "stages": {site: found.stage for site, found in receipt.sites.items() if found.stage},
            }
        )
        for entry, receipt in zip(plain.rounds, trained_rounds(receipts).values(), strict=True)
    ]
    whole = all(receipt.complete for receipt in receipts)
    outcome = "quorum_lost"
    if receipts and receipts[-1].kind == "evaluate":
        outcome = "complete" if whole else "complete_on_subset"
    made = [receipt.outgoing_sha256 for receipt in receipts if receipt.outgoing_sha256]
    content = {
        "rounds": rounds,
        "signed_receipts": receipts,
        "receipts_public_key": public(),
        "outcome": outcome,
        "final_weights_sha256": made[-1] if made else weights(0),
    }
    return StudyResult.model_validate(plain.model_copy(update={**content, **changes}).model_dump())
