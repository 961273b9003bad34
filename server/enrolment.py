"""Enrolling a site: its key at the SuperLink, its name and, where it told, number of images in the enrolment record."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from semc.exit_codes import ExitCode, SemcError
from server.control import Control
from server.home import Home
from server.registry import Enrolment, Registry, read_public_key

_SITE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_LOCK: Final = "registry.lock"


def enrol(home: Home, site: str, key_file: Path, num_images: int | None = None) -> Enrolment:
    """Register a site's key and record what weighs its updates.

    A site that is enrolled with the same key only gets its number of images changed, where one is given.

    Args:
        home: The coordinator's home; its coordinator must be running.
        site: The name the site's own file gives it.
        key_file: The public half of its key, OpenSSH or PEM.
        num_images: Training images agreed with the site; None: it takes part in studies of weight uniform only, as
            all with patient-level privacy are.

    Returns:
        The enrolment.

    Raises:
        SemcError: USAGE, KEY_INVALID, SERVER_UNREACHABLE.
    """
    if not _SITE_NAME.fullmatch(site):
        raise SemcError(
            ExitCode.USAGE,
            "A site's name is lower-case letters, digits, - and _, at most 40.",
            "use the name in its site.yaml",
        )
    public_key = read_public_key(key_file)
    with home.lock(_LOCK, wait=True):
        registry = Registry.load(home.root)
        known = registry.sites.get(site)
        owner = registry.site_of_key(public_key.encode())
        if owner not in (None, site):
            raise SemcError(
                ExitCode.KEY_INVALID,
                f"This key already belongs to site '{owner}'.",
                "let each site make its own with `semc-client keygen`",
            )
        if known is not None and owner != site:
            raise SemcError(
                ExitCode.KEY_INVALID,
                f"Site '{site}' is enrolled with another key.",
                f"run `semc-server revoke {site}` first if the key was replaced on purpose",
            )
        if known is not None:
            kept = known.num_examples if num_images is None else num_images
            enrolment = known.model_copy(update={"num_examples": kept})
        else:
            control = Control(home)
            control.connect()
            node_id = control.register(site, public_key)
            enrolment = Enrolment(public_key=public_key, num_examples=num_images, node_id=node_id)
        registry.enrolled(site, enrolment).save(home.root)
    return enrolment


def revoke(home: Home, site: str) -> None:
    """Take a site's key away, at the SuperLink first.

    Raises:
        SemcError: KEY_UNREGISTERED where no such site is enrolled, SERVER_UNREACHABLE.
    """
    with home.lock(_LOCK, wait=True):
        registry = Registry.load(home.root)
        entry = registry.sites.get(site)
        if entry is None or entry.node_id is None:
            raise SemcError(
                ExitCode.KEY_UNREGISTERED,
                f"There is no enrolled site '{site}'.",
                f"name one of: {', '.join(sorted(registry.sites)) or 'none is enrolled'}",
            )
        control = Control(home)
        control.connect()
        control.unregister(entry.node_id)
        registry.without(site).save(home.root)
