"""Enrolment record, public keys, weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from semc.config import FederationConfig, load_study
from semc.exit_codes import ExitCode, SemcError
from server.registry import (
    Enrolment,
    Registry,
    openssh_text,
    read_public_key,
    rehearsal_registry,
)
from server.run_folder import RunFolder
from server.site_weights import site_weights

SSH, PEM = serialization.Encoding.OpenSSH, serialization.Encoding.PEM


def _key_file(folder: Path, encoding: serialization.Encoding, key: object = None) -> Path:
    key = key or ec.generate_private_key(ec.SECP384R1())
    form = (
        serialization.PublicFormat.OpenSSH
        if encoding is SSH
        else serialization.PublicFormat.SubjectPublicKeyInfo
    )
    path = folder / "site.pub"
    path.write_bytes(key.public_key().public_bytes(encoding, form) + b" north")  # type: ignore[attr-defined]
    return path


def test_openssh_and_pem_files_of_one_key_read_the_same(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    from_ssh = read_public_key(_key_file(tmp_path, SSH, key))
    pem_file = tmp_path / "site.pem"
    pem_file.write_text(from_ssh)
    assert from_ssh.startswith("-----BEGIN PUBLIC KEY-----")
    assert read_public_key(pem_file) == from_ssh
    assert openssh_text(from_ssh).startswith("ecdsa-sha2-nistp384 ")


@pytest.mark.parametrize("key", [ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)])
def test_key_off_the_nist_curves_is_refused(tmp_path: Path, key: object) -> None:
    with pytest.raises(SemcError) as caught:
        read_public_key(_key_file(tmp_path, SSH, key))
    assert caught.value.code is ExitCode.KEY_INVALID


def test_private_key_is_refused_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    path.write_bytes(
        ec.generate_private_key(ec.SECP384R1()).private_bytes(
            PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    with pytest.raises(SemcError, match="must not leave its site") as caught:
        read_public_key(path)
    assert caught.value.code is ExitCode.KEY_INVALID


@pytest.mark.parametrize("content", [b"", b"ssh-rsa nonsense", b"-----BEGIN PUBLIC KEY-----\nAAAA"])
def test_damaged_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "site.pub"
    path.write_bytes(content)
    with pytest.raises(SemcError) as caught:
        read_public_key(path)
    assert caught.value.code is ExitCode.KEY_INVALID
    assert str(tmp_path) not in caught.value.line()


def test_registry_survives_the_disk(tmp_path: Path) -> None:
    entry = Enrolment(public_key="pem text", num_examples=41, node_id=2**64 - 1)
    registry = Registry({}).enrolled("south", entry).enrolled("north", entry)
    registry.save(tmp_path)
    assert Registry.load(tmp_path) == registry
    assert Registry.load(tmp_path / "nowhere").sites == {}
    assert registry.without("south").sites.keys() == {"north"}


def test_damaged_registry_is_an_error_not_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "registry.json").write_text('{"north": {"public_key": null, "num_examples": 0}}')
    with pytest.raises(SemcError) as caught:
        Registry.load(tmp_path)
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID


def test_key_finds_its_site_and_no_other(tmp_path: Path) -> None:
    north, south = (read_public_key(_key_file(tmp_path, SSH)) for _ in range(2))
    registry = Registry({"north": Enrolment(public_key=north, num_examples=1)})
    assert registry.site_of_key(north.encode()) == "north"
    assert registry.site_of_key(south.encode()) is None
    assert registry.site_of_key(b"") is None
    assert registry.has_keys


def test_simulated_sites_have_no_keys(tmp_path: Path) -> None:
    rehearsal_registry({"a": 3, "b": 4}).save(tmp_path)
    registry = Registry.load(tmp_path)
    assert not registry.has_keys
    assert registry.site_of_key(b"") is None
    assert {site: entry.num_examples for site, entry in registry.sites.items()} == {"a": 3, "b": 4}


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        ("n", {"a": 4.0, "b": 100.0}),
        ("sqrt_n", {"a": 2.0, "b": 10.0}),
        ("uniform", {"a": 1.0, "b": 1.0}),
    ],
)
def test_weights(weight: str, expected: dict[str, float]) -> None:
    registry = Registry(
        {site: Enrolment(public_key=None, num_examples=n) for site, n in {"a": 4, "b": 100, "c": 9}.items()}
    )
    federation = FederationConfig.model_validate({"sites": ["a", "b"], "weight": weight})
    assert site_weights(federation, registry) == expected


def test_a_site_without_a_number_of_images_is_weighed_alike_or_not_at_all(tmp_path: Path) -> None:
    silent = Enrolment(public_key="pem text", num_examples=None, node_id=7)
    Registry({"a": silent, "b": Enrolment(public_key=None, num_examples=9)}).save(tmp_path)
    registry = Registry.load(tmp_path)
    assert registry.sites["a"] == silent
    uniform = FederationConfig.model_validate({"sites": ["a", "b"], "weight": "uniform"})
    assert site_weights(uniform, registry) == {"a": 1.0, "b": 1.0}
    for weight in ("n", "sqrt_n"):
        by_images = {"federation.sites": ["a", "b"], "federation.weight": weight}
        with pytest.raises(SemcError, match=f"weight {weight} takes: a\\.") as caught:
            RunFolder(tmp_path / weight).create(load_study("phantom_smoke", by_images), registry)
        assert caught.value.code is ExitCode.USAGE
        assert not (tmp_path / weight).exists()


def test_weight_of_a_site_that_is_not_enrolled_is_refused() -> None:
    federation = FederationConfig.model_validate({"sites": ["a", "b"]})
    with pytest.raises(SemcError) as caught:
        site_weights(federation, Registry({"a": Enrolment(public_key=None, num_examples=1)}))
    assert caught.value.code is ExitCode.KEY_UNREGISTERED
    assert "not enrolled: b." in caught.value.problem
