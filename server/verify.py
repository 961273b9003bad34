"""`semc-server verify`: is the record of who took part in a run the one that its coordinator signed?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semc.checkpoint import latest
from semc.exit_codes import ExitCode, SemcError
from semc.reporting.reasons import in_words
from semc.reporting.receipt import SignedReceipt, SiteReceipt, changed, key_fingerprint, verify_chain
from semc.reporting.receipt_agreement import check_result
from semc.reporting.result import OUTCOME_EXIT_CODES
from server.global_model import weights_sha256
from server.home import Home
from server.receipt_signing import ReceiptSigner
from server.round_checkpoint import CHECKPOINT_PREFIX, load_round
from server.run_folder import RunFolder
from server.run_outcome import settled_result
from server.run_state import RunState, run_state


@dataclass(frozen=True)
class VerifiedRun:
    """A run whose record is as it was signed."""

    run: str
    outcome: str
    """The result's; waiting, running, interrupted or stopped where it has none."""
    public_key: str
    receipts: tuple[SignedReceipt, ...]

    def exit_code(self) -> ExitCode:
        """Return how the run ended, so that a sound record of half a study is not taken for a whole one.

        A run that goes on has not ended, and its record is sound so far: OK.
        """
        if self.outcome in (RunState.STOPPED, RunState.INTERRUPTED):
            return ExitCode.RUN_FAILED
        return next((code for name, code in OUTCOME_EXIT_CODES.items() if name == self.outcome), ExitCode.OK)

    def lines(self) -> list[str]:
        """Return the run, one line per round, and by which key and last hash it can be recognised."""
        rounds = [f"{receipt.title}: {_who(receipt)}" for receipt in self.receipts]
        head = self.receipts[-1].sha256() if self.receipts else "none, no round was closed"
        return [
            *rounds,
            f"signed with key {self.public_key} ({key_fingerprint(self.public_key)})",
            f"last receipt: {head}",
            f"the receipts of run {self.run} are as they were signed; outcome: {self.outcome.replace('_', ' ')}",
        ]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "run": self.run,
            "outcome": self.outcome,
            "public_key": self.public_key,
            "fingerprint": key_fingerprint(self.public_key),
            "head": self.receipts[-1].sha256() if self.receipts else "",
            "receipts": [receipt.model_dump(mode="json") for receipt in self.receipts],
        }


def verify_run(home: Home, folder: RunFolder, public_key: str | None = None) -> VerifiedRun:
    """Verify a run's result, or where it has none yet, its newest checkpoint.

    Args:
        home: The coordinator's home, whose key is used by default.
        folder: The run.
        public_key: Another coordinator's key as base64 text, or the name of a file that holds it.

    Raises:
        SemcError: CHECKPOINT_INVALID with what was changed; KEY_INVALID.
    """
    key = ReceiptSigner.load(home.receipts_key).public_key if public_key is None else _given(public_key)
    run = folder.root.name
    saved = _saved_receipts(folder)
    result = settled_result(folder)
    if result is None:
        verify_chain(saved, key, study_digest=folder.study().digest(), run=run)
        return VerifiedRun(run, str(run_state(folder)), key, saved)
    check_result(result, key, run, saved)
    return VerifiedRun(run, result.outcome, key, tuple(result.signed_receipts))


def _saved_receipts(folder: RunFolder) -> tuple[SignedReceipt, ...]:
    """Return the receipts of the newest checkpoint, whose weights are those of the last; none without a checkpoint.

    Raises:
        SemcError: CHECKPOINT_INVALID.
    """
    newest = latest(folder.checkpoints, CHECKPOINT_PREFIX)
    if newest is None:
        return ()
    saved = load_round(folder.checkpoints, int(newest.name.removeprefix(CHECKPOINT_PREFIX)))
    made = [receipt for receipt in saved.receipts if receipt.outgoing_sha256]
    if (made[-1].round if made else 0) != saved.number:
        raise changed(f"The newest checkpoint is of round {saved.number}, its last receipt is not.")
    dtype = folder.study().federation.wire_dtype
    if made and weights_sha256(saved.model, dtype) != made[-1].outgoing_sha256:
        raise changed(f"The newest checkpoint's weights are not those signed in round {saved.number}.")
    return saved.receipts


def _given(public_key: str) -> str:
    """Return a key given as text or as the name of a file."""
    try:
        path = Path(public_key)
        text = path.read_text(encoding="utf-8").strip() if path.is_file() else public_key.strip()
        key_fingerprint(text)  # refused here, before anything is read
    except (OSError, UnicodeDecodeError) as error:
        raise SemcError(
            ExitCode.KEY_INVALID, "The file of the public key cannot be read.", "correct --public-key"
        ) from error
    return text


def _who(receipt: SignedReceipt) -> str:
    """Say who was in, with which share of the mean, and who was not, where and why."""
    present = {site: found for site, found in sorted(receipt.sites.items()) if found.state == "in"}
    absent = {site: found for site, found in sorted(receipt.sites.items()) if found.state != "in"}
    total = sum(found.weight or 0.0 for found in present.values())
    there = ", ".join(f"{site}{_share(found, total)}" for site, found in present.items()) or "nobody"
    missing = ", ".join(f"{site} {_why(found)}" for site, found in absent.items())
    unused = (
        "" if receipt.kind == "evaluate" or receipt.outgoing_sha256 else "; below its quorum, no new weights"
    )
    return f"in: {there}{f'; not in: {missing}' if missing else ''}{unused}"


def _share(found: SiteReceipt, total: float) -> str:
    return f" ({found.weight / total:.1%})" if found.weight is not None and total > 0 else ""


def _why(found: SiteReceipt) -> str:
    return f"{found.state} at {found.stage} ({in_words(found.reason)})"
