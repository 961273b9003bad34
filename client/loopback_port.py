"""Ports on this machine's loopback: one that is free, and whether a wanted one is."""

from __future__ import annotations

import socket

from semc.config import SiteConfig
from semc.exit_codes import ExitCode, SemcError


def free_port(wanted: int) -> int:
    """Return the wanted loopback port, or any free one where it is taken; 0 wants any.

    Raises:
        SemcError: PORT_IN_USE where none is free.
    """
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SemcError(ExitCode.PORT_IN_USE, "No loopback port is free.", "end programs that listen on ports")


def check_health_port(site: SiteConfig) -> None:
    """Refuse a health port that is taken.

    Raises:
        SemcError: PORT_IN_USE.
    """
    if site.health_port is not None and free_port(site.health_port) != site.health_port:
        raise SemcError(
            ExitCode.PORT_IN_USE,
            f"The health port {site.health_port} is taken.",
            "choose another health_port in the site file",
        )
