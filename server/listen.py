"""Where the coordinator listens, and whether it can."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Final

from semc.exit_codes import ExitCode, SemcError
from server.home import Endpoint

_LOOPBACK: Final = ("127.0.0.1", "localhost")
_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - the door in superlink.py leaves only the fleet endpoints to others


@dataclass(frozen=True)
class Listen:
    """Where the coordinator listens.

    Args:
        host: 127.0.0.1 for this machine only, 0.0.0.0 for the sites.
        port: Port of the SuperLink.
        health_host: Interface of the gRPC health service.
        health_port: Its port.
    """

    host: str
    port: int
    health_host: str
    health_port: int

    @classmethod
    def parse(cls, address: str, health_address: str | None) -> Listen:
        """Read `host:port`; the health service defaults to the next port on the loopback.

        Raises:
            SemcError: USAGE where the host is a single outside interface: the coordinator's own programs
                reach the SuperLink over the loopback, which is where the Control API is open.
        """
        host, port = _split(address)
        if host not in (*_LOOPBACK, _EVERYWHERE):
            raise SemcError(
                ExitCode.USAGE,
                f"The coordinator cannot listen on {host} alone.",
                f"give 127.0.0.1:{port} (this machine) or {_EVERYWHERE}:{port} (and a firewall)",
            )
        health_host, health_port = _split(health_address) if health_address else (_LOOPBACK[0], port + 1)
        return cls("127.0.0.1" if host in _LOOPBACK else host, port, health_host, health_port)

    def endpoint(self) -> Endpoint:
        """Return the addresses by which this machine's programs reach the coordinator."""
        health_host = _LOOPBACK[0] if self.health_host == _EVERYWHERE else self.health_host
        return Endpoint(f"127.0.0.1:{self.port}", f"{health_host}:{self.health_port}", os.getpid())


def _split(address: str) -> tuple[str, int]:
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise SemcError(ExitCode.USAGE, f"'{address}' is not host:port.", "write it like 127.0.0.1:8000")
    return host, int(port)


def listens(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((_LOOPBACK[0], port)) == 0


def check_free(host: str, port: int) -> None:
    """Check that a port can be listened on.

    Raises:
        SemcError: PORT_IN_USE where it cannot.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SemcError(
                ExitCode.PORT_IN_USE,
                f"Port {port} is taken.",
                "stop the program that uses it, or give another with --address or --health-address",
            ) from error
