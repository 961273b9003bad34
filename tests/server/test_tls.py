"""Certificates: what is made, what is renewed, what is refused; and that real TLS stacks accept it."""

from __future__ import annotations

import socket
import ssl
import stat
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from semc.exit_codes import ExitCode, SemcError
from server.home import Home
from server.tls import SERVER_DAYS, days_left, ensure_certificates, fingerprint, loopback_only


@pytest.fixture
def home(tmp_path: Path) -> Home:
    ensure_certificates(Home(tmp_path), ["coordinator.example", "10.1.2.3"])
    return Home(tmp_path)


def _handshake(home: Home, ca: Path, name: str) -> str:
    """Do one TLS handshake over a socket pair; return the protocol version."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(home.server_certificate, home.server_key)
    client = ssl.create_default_context(cafile=str(ca))
    left, right = socket.socketpair()
    left.settimeout(10)
    right.settimeout(10)

    def serve() -> None:
        try:
            with server.wrap_socket(left, server_side=True) as stream:
                stream.recv(1)
        except (ssl.SSLError, OSError):
            left.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(right, server_hostname=name) as stream:
            stream.send(b"x")
            return str(stream.version())
    finally:
        right.close()
        thread.join()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "coordinator.example", "10.1.2.3"])
def test_every_name_is_accepted_over_tls_1_3(home: Home, name: str) -> None:
    assert _handshake(home, home.ca_certificate, name) == "TLSv1.3"


def test_another_name_is_refused(home: Home) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        _handshake(home, home.ca_certificate, "elsewhere.example")


def test_another_authority_is_refused(home: Home, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Home(tmp_path_factory.mktemp("other"))
    ensure_certificates(other, [])
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(home, other.ca_certificate, "localhost")


def test_keys_are_their_owners_only(home: Home) -> None:
    for key in (home.ca_key, home.server_key):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_certificate_lasts_90_days(home: Home) -> None:
    assert SERVER_DAYS - 0.1 < days_left(home.server_certificate) <= SERVER_DAYS
    assert days_left(home.server_certificate, datetime.now(UTC) + timedelta(days=100)) < -9


def test_second_start_keeps_what_is_good(home: Home) -> None:
    before = home.server_certificate.read_bytes(), home.ca_certificate.read_bytes()
    ensure_certificates(home, ["coordinator.example"])
    assert (home.server_certificate.read_bytes(), home.ca_certificate.read_bytes()) == before


def test_new_name_issues_a_new_certificate_under_the_same_authority(home: Home) -> None:
    authority = home.ca_certificate.read_bytes()
    ensure_certificates(home, ["new.example"])
    assert home.ca_certificate.read_bytes() == authority
    assert _handshake(home, home.ca_certificate, "new.example") == "TLSv1.3"


def test_certificate_close_to_its_end_is_renewed(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.tls.RENEW_DAYS", SERVER_DAYS + 1)
    serial = x509.load_pem_x509_certificate(home.server_certificate.read_bytes()).serial_number
    ensure_certificates(home, [])
    assert x509.load_pem_x509_certificate(home.server_certificate.read_bytes()).serial_number != serial


@pytest.mark.parametrize("damage", ["name", "key", "missing", "authority"])
def test_own_authority_certificates_are_checked_and_never_replaced(
    home: Home, damage: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Home(tmp_path_factory.mktemp("other"))
    ensure_certificates(other, [])
    home.ca_key.unlink()
    ensure_certificates(home, [])  # the control: good ones are accepted without the authority's key
    names: list[str] = []
    match damage:
        case "name":
            names = ["unnamed.example"]
        case "key":
            home.server_key.write_bytes(other.server_key.read_bytes())
        case "missing":
            home.server_key.unlink()
        case "authority":
            home.ca_certificate.write_bytes(other.ca_certificate.read_bytes())
    before = home.server_certificate.read_bytes()
    with pytest.raises(SemcError) as caught:
        ensure_certificates(home, names)
    assert caught.value.code is ExitCode.TLS_UNTRUSTED
    assert home.server_certificate.read_bytes() == before


def test_the_fingerprint_is_the_one_openssl_prints(tmp_path: Path) -> None:
    home = Home(tmp_path)
    ensure_certificates(home, [])
    printed = subprocess.run(
        ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", str(home.ca_certificate)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert printed.strip().endswith(f"={fingerprint(home.ca_certificate)}")


def test_a_certificate_for_this_machine_only_is_known_as_such(tmp_path: Path) -> None:
    assert loopback_only(_certified(tmp_path / "here", []))
    assert not loopback_only(_certified(tmp_path / "there", ["coordinator.example"]))


def _certified(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    home = Home(folder)
    ensure_certificates(home, names)
    return home.server_certificate
