"""TLS for the coordinator: a rehearsal authority, 90-day server certificates, and their expiry check.

A centre with its own authority puts `ca.crt`, `server.crt` and `server.key` into the home itself; without
`ca.key` nothing here writes a certificate, it only checks. Keys are elliptic-curve P-256, readable by their
owner only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from semc.exit_codes import ExitCode, SemcError
from semc.whole_file import write_whole
from server.home import Home

SERVER_DAYS: Final = 90
RENEW_DAYS: Final = 14
"""A certificate with fewer days left is replaced where the authority's key is at hand."""
_CA_DAYS: Final = 3 * 365
_LOCAL: Final = ("localhost", "127.0.0.1")


def ensure_certificates(home: Home, names: Sequence[str]) -> None:
    """Make, renew or check the coordinator's certificates.

    Args:
        home: Where they lie.
        names: Host names and IP addresses under which sites dial; localhost is always added.

    Raises:
        SemcError: TLS_UNTRUSTED where the certificates cannot serve and there is no authority key to renew
            them.
    """
    if not home.ca_certificate.exists() and not home.server_certificate.exists():
        _create_authority(home)
    problem = _problem(home, [*_LOCAL, *names])
    if problem and home.ca_key.exists():
        _issue(home, [*_LOCAL, *names])
    elif problem:
        raise SemcError(
            ExitCode.TLS_UNTRUSTED,
            f"The server certificate {problem}.",
            "have your authority issue a new server.crt for localhost, 127.0.0.1 and the coordinator's name",
        )


def fingerprint(certificate: Path) -> str:
    """Return a certificate's SHA-256 fingerprint as `openssl x509 -fingerprint` prints it."""
    content = x509.load_pem_x509_certificate(certificate.read_bytes())
    return content.fingerprint(hashes.SHA256()).hex(":").upper()


def loopback_only(certificate: Path) -> bool:
    """Tell whether a certificate names this machine only, so that no other one can verify it."""
    return _names_of(x509.load_pem_x509_certificate(certificate.read_bytes())) <= set(_LOCAL)


def days_left(certificate: Path, now: datetime | None = None) -> float:
    """Return the days until a certificate expires, negative after it."""
    content = x509.load_pem_x509_certificate(certificate.read_bytes())
    return (content.not_valid_after_utc - (now or datetime.now(UTC))) / timedelta(days=1)


def _problem(home: Home, names: Sequence[str]) -> str:
    """Return why the server certificate cannot serve, or nothing."""
    try:
        authority = x509.load_pem_x509_certificate(home.ca_certificate.read_bytes())
        certificate = x509.load_pem_x509_certificate(home.server_certificate.read_bytes())
        key = serialization.load_pem_private_key(home.server_key.read_bytes(), password=None)
        certificate.verify_directly_issued_by(authority)
    except (OSError, ValueError, TypeError):
        return "or its key is missing or unreadable"
    except Exception:  # cryptography raises its own InvalidSignature, which is no ValueError
        return "was not signed by ca.crt"
    if certificate.public_key() != key.public_key():
        return "does not belong to server.key"
    limit = RENEW_DAYS if home.ca_key.exists() else 0
    if days_left(home.server_certificate) <= limit:
        return "has expired or expires within days"
    missing = set(names) - _names_of(certificate)
    return f"does not name {', '.join(sorted(missing))}" if missing else ""


def _names_of(certificate: x509.Certificate) -> set[str]:
    """Return the DNS names and IP addresses a certificate is valid for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return addresses | set(names.get_values_for_type(x509.DNSName))


def _create_authority(home: Home) -> None:
    """Write the rehearsal authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "semc rehearsal authority")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(name, name, key.public_key(), _CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write_key(home.ca_key, key)
    write_whole(home.ca_certificate, certificate.public_bytes(serialization.Encoding.PEM))


def _issue(home: Home, names: Sequence[str]) -> None:
    """Write a server certificate for these names, signed by the rehearsal authority."""
    authority = x509.load_pem_x509_certificate(home.ca_certificate.read_bytes())
    ca_key = serialization.load_pem_private_key(home.ca_key.read_bytes(), password=None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "semc coordinator")])
    certificate = (
        _builder(subject, authority.subject, key.public_key(), SERVER_DAYS)
        .add_extension(x509.SubjectAlternativeName([_general_name(n) for n in dict.fromkeys(names)]), False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    _write_key(home.server_key, key)
    write_whole(home.server_certificate, certificate.public_bytes(serialization.Encoding.PEM))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    """Return a certificate valid from five minutes ago, for sites whose clock is behind."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=days))
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a private key that only its owner can read, from its first byte on."""
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_private(path, text)


def write_private(path: Path, content: bytes) -> None:
    """Replace a file that only its owner may read, whole or not at all, also where the power fails."""
    write_whole(path, content, mode=0o600)
