"""A site's key: private to its owner, readable by Flower, never overwritten."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from client.identity import create_identity, public_key_path, read_identity
from semc.exit_codes import ExitCode, SemcError


def code_of(path: Path) -> ExitCode:
    with pytest.raises(SemcError) as caught:
        read_identity(path, "north")
    return caught.value.code


def test_the_private_half_is_private_and_flower_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "site.key"
    identity = create_identity(path, "north")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    key = load_ssh_private_key(path.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP384R1)
    public = public_key_path(path).read_text()
    assert public == f"{identity.public_key}\n"
    assert public.endswith(" north\n")
    assert load_ssh_public_key(public.encode()) == key.public_key()
    assert "PRIVATE" not in public
    assert read_identity(path, "north") == identity


needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is the oracle")


@needs_ssh_keygen
def test_the_fingerprint_is_the_one_ssh_keygen_prints(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    identity = create_identity(path, "north")
    printed = subprocess.run(
        ["ssh-keygen", "-lf", str(public_key_path(path))], capture_output=True, text=True, check=True
    ).stdout
    assert identity.fingerprint in printed


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    create_identity(path, "north")
    before = path.read_bytes()
    with pytest.raises(SemcError) as caught:
        create_identity(path, "north")
    assert caught.value.code is ExitCode.KEY_INVALID
    assert path.read_bytes() == before


def test_a_key_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    create_identity(path, "north")
    path.chmod(0o640)
    assert code_of(path) is ExitCode.KEY_INVALID


@needs_ssh_keygen
def test_a_key_with_a_passphrase_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "a passphrase", "-f", path], check=True
    )
    assert code_of(path) is ExitCode.KEY_INVALID


def test_missing_damaged_and_foreign_keys_are_refused(tmp_path: Path) -> None:
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
    )
    for number, content in enumerate((None, b"", b"not a key", other)):
        path = tmp_path / f"{number}.key"
        if content is not None:
            path.write_bytes(content)
            path.chmod(0o600)
        assert code_of(path) is ExitCode.KEY_INVALID
