"""The coordinator's key for receipts, and the signing of a round's receipt with it.

Its own key, not that of TLS: certificates are renewed every 90 days, but a study must be provable years later.
"""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from semc.exit_codes import ExitCode, SemcError
from semc.reporting.receipt import Kind, SignedReceipt, SiteReceipt
from server.tls import write_private


class ReceiptSigner:
    """Signs receipts with one Ed25519 key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    @classmethod
    def load_or_make(cls, key_file: Path) -> ReceiptSigner:
        """Read the key, or make it where there never was one.

        Args:
            key_file: PEM, mode 0600; written whole or not at all. Of two processes that make it at once one wins, and
                both use its key.

        Raises:
            SemcError: KEY_INVALID where it is unreadable, damaged or open to others, DISK where it cannot be written.
        """
        if not os.path.lexists(key_file):
            _make(key_file)
        return cls.load(key_file)

    @classmethod
    def load(cls, key_file: Path) -> ReceiptSigner:
        """Read the key.

        Raises:
            SemcError: KEY_INVALID, also where there is none.
        """
        return cls(_load(key_file))

    @property
    def public_key(self) -> str:
        """The raw public half, base64: 44 characters."""
        return base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    def sign(
        self,
        *,
        study_digest: str,
        run: str,
        round_number: int,
        kind: Kind,
        sites: Mapping[str, SiteReceipt],
        incoming_sha256: str,
        outgoing_sha256: str,
        before: Sequence[SignedReceipt],
    ) -> SignedReceipt:
        """Return a round's receipt, signed.

        Args:
            study_digest: Of the study.
            run: Name of the run folder.
            round_number: From 1; the closing evaluation is rounds + 1.
            kind: Training or evaluation.
            sites: Every named site's part.
            incoming_sha256: Of the weights sent to the sites.
            outgoing_sha256: Of the weights the round made; empty where it made none.
            before: The run's receipts so far, oldest first; this one names the last.
        """
        unsigned = SignedReceipt(
            study_digest=study_digest,
            run=run,
            round=round_number,
            kind=kind,
            sites=dict(sorted(sites.items())),
            incoming_sha256=incoming_sha256,
            outgoing_sha256=outgoing_sha256,
            previous=before[-1].sha256() if before else "",
            signature="",
        )
        signature = base64.b64encode(self._key.sign(unsigned.signed_bytes())).decode()
        return unsigned.model_copy(update={"signature": signature})


def _make(key_file: Path) -> None:
    """Write a new key unless another process was first."""
    key = Ed25519PrivateKey.generate()
    own = key_file.with_name(f".{key_file.stem}-{os.getpid()}.key")
    try:
        key_file.parent.mkdir(parents=True, exist_ok=True)
        write_private(own, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        with suppress(FileExistsError):
            os.link(own, key_file)
        own.unlink()
    except OSError as error:
        raise SemcError(
            ExitCode.DISK,
            f"The key that signs receipts could not be written ({error.strerror}).",
            "free space or make the folder writable",
        ) from error


def _load(key_file: Path) -> Ed25519PrivateKey:
    """Read a key file that only its owner may read.

    Raises:
        SemcError: KEY_INVALID.
    """
    restore = (
        f"restore {key_file.name} from a backup; moved away, a new key is made, which cannot prove older runs"
    )
    try:
        mode = stat.S_IMODE(key_file.stat().st_mode)
        text = key_file.read_bytes()
    except OSError as error:
        raise SemcError(
            ExitCode.KEY_INVALID,
            f"The key that signs receipts cannot be read ({error.strerror}).",
            f"give {key_file.name} to the coordinator's user, with mode 0600",
        ) from error
    if mode & 0o077:
        raise SemcError(
            ExitCode.KEY_INVALID,
            f"The key that signs receipts can be read by others (mode {mode:04o}).",
            f"chmod 600 {key_file.name}",
        )
    try:
        key = load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SemcError(ExitCode.KEY_INVALID, "The key that signs receipts is damaged.", restore) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SemcError(ExitCode.KEY_INVALID, "The key that signs receipts is no Ed25519 key.", restore)
    return key
