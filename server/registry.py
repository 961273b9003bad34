"""The enrolment record: site name <-> public key <-> Flower node, and the number of images that weighs it.

`registry.json` maps each site's name to `{public_key, num_examples, node_id}`. Weights come from here, never
from a reply, so no site can raise its own influence. Simulations and rehearsals have no keys: there
`public_key` and `node_id` are null, and a site is who it says it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from semc.exit_codes import ExitCode, SemcError
from semc.whole_file import write_whole

REGISTRY_FILE: Final = "registry.json"


class Enrolment(BaseModel):
    """One enrolled site."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    public_key: str | None
    """PEM text of the site's EC public key; null in simulations."""
    num_examples: int | None = Field(ge=1)
    """Training images agreed with the site at enrolment; the weight of its updates. None where it did not say: it takes
    part in studies that weigh all sites alike, such as every study with patient-level privacy."""
    node_id: int | None = Field(default=None, ge=1, lt=2**64)
    """Node number the SuperLink gave this key."""


_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_ENTRIES = TypeAdapter(dict[str, Enrolment])


@dataclass(frozen=True)
class Registry:
    """All enrolled sites by name."""

    sites: Mapping[str, Enrolment]

    @classmethod
    def load(cls, folder: Path) -> Registry:
        """Read a folder's registry; a missing one is empty.

        Raises:
            SemcError: CHECKPOINT_INVALID where the file is damaged.
        """
        try:
            text = (folder / REGISTRY_FILE).read_text(encoding="utf-8")
            return cls(_ENTRIES.validate_json(text))
        except FileNotFoundError:
            return cls({})
        except (OSError, ValidationError) as error:
            raise SemcError(
                ExitCode.CHECKPOINT_INVALID,
                "The enrolment record is unreadable or damaged.",
                "restore it from a backup, or enrol the sites again",
            ) from error

    def save(self, folder: Path) -> None:
        """Replace a folder's registry, whole or not at all, also where the power fails.

        Raises:
            OSError: The disk is full or not writable; the older registry is then intact.
        """
        text = json.dumps(_ENTRIES.dump_python(dict(sorted(self.sites.items())), mode="json"), indent=2)
        write_whole(folder / REGISTRY_FILE, text.encode())

    def enrolled(self, site: str, enrolment: Enrolment) -> Registry:
        """Return a registry in which a site has this enrolment."""
        return replace(self, sites={**self.sites, site: enrolment})

    def without(self, site: str) -> Registry:
        """Return a registry in which a site is not enrolled."""
        return replace(self, sites={name: entry for name, entry in self.sites.items() if name != site})

    def restricted_to(self, names: tuple[str, ...]) -> Registry:
        """Return the enrolments of a study's sites.

        Raises:
            SemcError: KEY_UNREGISTERED where a named site is not enrolled.
        """
        missing = [name for name in names if name not in self.sites]
        if missing:
            raise SemcError(
                ExitCode.KEY_UNREGISTERED,
                f"The study names sites that are not enrolled: {', '.join(missing)}.",
                "run `semc-server enrol SITE --public-key FILE [--images N]` for each",
            )
        return replace(self, sites={name: self.sites[name] for name in names})

    def site_of_key(self, public_key: bytes) -> str | None:
        """Return the site that owns a key as Flower stores it (PEM), or None."""
        text = public_key.decode("ascii", errors="replace").strip()
        for name, entry in self.sites.items():
            if entry.public_key is not None and entry.public_key.strip() == text:
                return name
        return None

    @property
    def has_keys(self) -> bool:
        """Whether sites prove who they are; False in simulations only."""
        return any(entry.public_key is not None for entry in self.sites.values())


def read_public_key(path: Path) -> str:
    """Read a site's public key, OpenSSH or PEM.

    Returns:
        The key as PEM text.

    Raises:
        SemcError: KEY_INVALID where the file is not the public half of a NIST elliptic-curve key.
    """
    fix = "send the public file that `semc-client keygen` made"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SemcError(
            ExitCode.KEY_INVALID, f"The public key cannot be read ({error.strerror}).", "check the path"
        ) from error
    if b"PRIVATE KEY" in data:
        raise SemcError(ExitCode.KEY_INVALID, "This is a private key; it must not leave its site.", fix)
    try:
        pem = data.lstrip().startswith(b"-----BEGIN")
        key = serialization.load_pem_public_key(data) if pem else serialization.load_ssh_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SemcError(ExitCode.KEY_INVALID, "The file is not an OpenSSH or PEM public key.", fix) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise SemcError(ExitCode.KEY_INVALID, "The key is not on a NIST elliptic curve.", fix)
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def openssh_text(public_key: str) -> str:
    """Return a PEM public key in the OpenSSH form that Flower's command line reads."""
    key = serialization.load_pem_public_key(public_key.encode())
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def rehearsal_registry(num_examples: Mapping[str, int]) -> Registry:
    """Return the registry of a simulation: sites without keys, weighed by their training images."""
    return Registry(
        {
            site: Enrolment(public_key=None, num_examples=count, node_id=None)
            for site, count in num_examples.items()
        }
    )
