"""Whether what a result says of its rounds is what was signed: who was in, the outcome, the final weights.

Scores and settings are not signed; the study's digest and the weights' hashes, which are, tie the receipts to them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from semc.reporting.receipt import SignedReceipt, changed, verify_chain
from semc.reporting.result import Outcome, RoundResult, StudyResult


def check_result(
    result: StudyResult, public_key: str, run: str | None = None, known: Sequence[SignedReceipt] = ()
) -> None:
    """Check a result against its own signed receipts, and these against what else is known of them.

    Args:
        result: As it was found.
        public_key: The coordinator's, from a source that is trusted.
        run: Name of the run it must be of; None where nothing says.
        known: Receipts of the same run from elsewhere, e.g. its newest checkpoint; the result's must begin with them.

    Raises:
        SemcError: CHECKPOINT_INVALID with the first thing that was changed; KEY_INVALID.
    """
    receipts = result.signed_receipts
    if not receipts and (result.rounds or result.outcome.startswith("complete")):
        raise changed("The result holds no signed receipts.")
    if receipts and result.receipts_public_key != public_key:
        raise changed("The result names another key than the one it is checked with.")
    verify_chain(receipts, public_key, study_digest=result.digest, run=run)
    for number, (theirs, ours) in enumerate(zip(known, receipts, strict=False), start=1):
        if theirs.sha256() != ours.sha256():
            raise changed(f"Receipt {number} ({ours.title}) is not the one in the newest checkpoint.")
    if len(known) > len(receipts):
        missing = known[len(receipts)]
        raise changed(
            f"Receipt {len(receipts) + 1} ({missing.title}), which the newest checkpoint has, is missing."
        )
    if receipts:
        _check_rounds(result)
        _check_outcome(result.outcome, receipts)
        _check_weights(result)


def trained_rounds(receipts: Sequence[SignedReceipt]) -> dict[int, SignedReceipt]:
    """Return each round's receipt; the last where a round below its quorum was resumed."""
    return {receipt.round: receipt for receipt in receipts if receipt.kind == "train"}


def outcome_of(receipts: Sequence[SignedReceipt]) -> tuple[Outcome, ...]:
    """Return the outcomes that receipts allow; without a closing evaluation no good one."""
    if not receipts or receipts[-1].kind != "evaluate":
        return ("quorum_lost", "failed")
    counted = [*trained_rounds(receipts).values(), receipts[-1]]
    return ("complete",) if all(receipt.complete for receipt in counted) else ("complete_on_subset",)


def _check_rounds(result: StudyResult) -> None:
    """Compare every round's states, stages and reasons."""
    signed = trained_rounds(result.signed_receipts)
    if [entry.round for entry in result.rounds] != sorted(signed):
        raise changed("The result has other rounds than its signed receipts.")
    for entry in result.rounds:
        for what, told, meant in _told_and_signed(entry, signed[entry.round]):
            if told != meant:
                sites = ", ".join(
                    sorted(site for site in {*told, *meant} if told.get(site) != meant.get(site))
                )
                raise changed(
                    f"Round {entry.round}: the {what} of {sites} in the result is not what was signed."
                )
    if sorted(site.site for site in result.sites) != sorted(result.signed_receipts[-1].sites):
        raise changed("The result names other sites than its signed receipts.")


def _told_and_signed(
    entry: RoundResult, receipt: SignedReceipt
) -> Sequence[tuple[str, Mapping[str, str], Mapping[str, str]]]:
    absent = {site: found for site, found in receipt.sites.items() if found.state != "in"}
    return (
        ("state", entry.receipts, {site: found.state for site, found in receipt.sites.items()}),
        ("stage", entry.stages, {site: found.stage for site, found in absent.items()}),
        ("reason", entry.reasons, {site: found.reason for site, found in absent.items()}),
    )


def _check_outcome(outcome: Outcome, receipts: Sequence[SignedReceipt]) -> None:
    allowed = outcome_of(receipts)
    if outcome not in allowed:
        shown = " or ".join(name.replace("_", " ") for name in allowed)
        raise changed(
            f"The result's outcome is '{outcome.replace('_', ' ')}', its signed receipts say {shown}."
        )


def _check_weights(result: StudyResult) -> None:
    """Compare the final weights with those that the last round made, or round 1 began with."""
    made = [receipt.outgoing_sha256 for receipt in result.signed_receipts if receipt.outgoing_sha256]
    final = made[-1] if made else result.signed_receipts[0].incoming_sha256
    if result.final_weights_sha256 != final:
        raise changed("The result's final weights are not those of the last signed round.")
