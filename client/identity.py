"""A site's key pair: made at the site, the private half never leaves, the public half is enrolled.

Flower authenticates a SuperNode by an ECDSA key in OpenSSH form without a passphrase, so the file's mode is
its protection.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from semc.exit_codes import ExitCode, SemcError


@dataclass(frozen=True)
class SiteIdentity:
    """The public half of a site's key."""

    public_key: str
    """One line, `ecdsa-sha2-nistp384 AAAA... <site>`."""

    @property
    def fingerprint(self) -> str:
        """`SHA256:...` as ssh-keygen prints it, to be compared by telephone."""
        blob = base64.b64decode(self.public_key.split()[1])
        return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def public_key_path(private_key: Path) -> Path:
    """Return where the public half lies: beside the private one, with `.pub` added."""
    return private_key.with_name(private_key.name + ".pub")


def create_identity(private_key: Path, site: str) -> SiteIdentity:
    """Make a key pair (ECDSA on P-384); never overwrites.

    Args:
        private_key: File of the private half, mode 0600; the public half is written beside it.
        site: Name of the hospital, the public half's comment.

    Raises:
        SemcError: KEY_INVALID where a key is there already, DISK where it cannot be written.
    """
    key = ec.generate_private_key(ec.SECP384R1())
    identity = _public_half(key, site)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    try:
        private_key.parent.mkdir(parents=True, exist_ok=True)
        _write_new(private_key, private, 0o600)
        public_key_path(private_key).unlink(missing_ok=True)
        _write_new(public_key_path(private_key), f"{identity.public_key}\n".encode(), 0o644)
    except FileExistsError as error:
        raise SemcError(
            ExitCode.KEY_INVALID,
            "This site has a key already; a new one would lock the site out until it is enrolled again.",
            "use the key that is there, or move it away first",
        ) from error
    except OSError as error:
        raise SemcError(
            ExitCode.DISK, f"The key could not be written ({error.strerror}).", "make the folder writable"
        ) from error
    return identity


def read_identity(private_key: Path, site: str) -> SiteIdentity:
    """Check a site's private key and return its public half.

    Raises:
        SemcError: KEY_INVALID where the key is missing, readable by others, encrypted or not an ECDSA key.
    """
    try:
        mode = stat.S_IMODE(private_key.stat().st_mode)
        text = private_key.read_bytes()
    except OSError as error:
        raise SemcError(
            ExitCode.KEY_INVALID,
            f"The site's private key cannot be read ({error.strerror}).",
            "make one with: semc-client keygen --site SITE.YAML",
        ) from error
    if mode & 0o077:
        raise SemcError(
            ExitCode.KEY_INVALID,
            f"The site's private key can be read by others (mode {mode:04o}).",
            f"chmod 600 {private_key.name}",
        )
    try:
        key = load_ssh_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SemcError(
            ExitCode.KEY_INVALID,
            "The site's private key is damaged or has a passphrase, which Flower cannot ask for.",
            "make one with: semc-client keygen --site SITE.YAML",
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SemcError(
            ExitCode.KEY_INVALID,
            "The site's private key is not an ECDSA key.",
            "make one with: semc-client keygen --site SITE.YAML",
        )
    return _public_half(key, site)


def _public_half(key: ec.EllipticCurvePrivateKey, site: str) -> SiteIdentity:
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return SiteIdentity(public_key=f"{line} {site}")


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not exist yet, with its final mode from the first byte on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
