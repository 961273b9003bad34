"""Asking the coordinator one harmless question over verified TLS, before anything heavy is started.

The question takes the way Flower's own requests take (same CA, same proxy variables), so that a wrong CA, a
wrong host name, a wrong clock and a dead address are told apart in one line instead of a retry loop.
"""

from __future__ import annotations

import os
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from client.environment import without_proxy_on_loopback
from semc.config.site import CoordinatorConfig
from semc.exit_codes import ExitCode, SemcError

ALLOWED_AHEAD_SECONDS: Final = 5.0
"""Flower refuses a signature whose time stamp lies further in the future (its SYSTEM_TIME_TOLERANCE)."""
ALLOWED_BEHIND_SECONDS: Final = 300.0
"""Flower refuses an older signature (its TIMESTAMP_TOLERANCE)."""

_SECONDS_PER_DAY: Final = 86_400.0
_NOT_NOW: Final = (9, 10)
"""OpenSSL's numbers for a certificate that is not yet valid, and for one that is not valid any more."""


@dataclass(frozen=True)
class Answer:
    """What one question tells about the coordinator."""

    certificate_days: float
    """Days until its certificate expires."""
    clock_ahead_seconds: float | None
    """How far this site's clock is ahead of the coordinator's, +-1 s; None where it states no time."""


def ask(coordinator: CoordinatorConfig, timeout_seconds: float = 5.0) -> Answer:
    """Connect to the coordinator, verify its certificate, read its clock.

    Raises:
        SemcError: TLS_UNTRUSTED where certificate or CA is wrong, SERVER_UNREACHABLE where nothing answers.
    """
    os.environ["NO_PROXY"] = without_proxy_on_loopback()
    context = trust(coordinator)
    url = f"https://{coordinator.address}/v1/fleet/"
    try:
        with (
            httpx.Client(verify=context, timeout=timeout_seconds) as client,
            client.stream("GET", url) as response,
        ):
            tls = response.extensions["network_stream"].get_extra_info("ssl_object")
            expires = ssl.cert_time_to_seconds(tls.getpeercert()["notAfter"])
            stated = response.headers.get("date")
    except httpx.HTTPError as error:
        raise _failure(coordinator.address, error) from error
    return Answer(
        certificate_days=(expires - time.time()) / _SECONDS_PER_DAY,
        clock_ahead_seconds=_ahead(stated) if stated else None,
    )


def check_clock(answer: Answer) -> None:
    """Refuse a clock that would lock this site out.

    Raises:
        SemcError: CLOCK_SKEW.
    """
    ahead = answer.clock_ahead_seconds
    if ahead is not None and not -ALLOWED_BEHIND_SECONDS < ahead < ALLOWED_AHEAD_SECONDS:
        raise SemcError(
            ExitCode.CLOCK_SKEW,
            f"This machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the "
            "coordinator's; its signatures would be refused.",
            "synchronise the clock (chrony or systemd-timesyncd)",
        )


def trust(coordinator: CoordinatorConfig) -> ssl.SSLContext:
    """Return a TLS context that trusts the site's CA file and nothing else.

    Raises:
        SemcError: TLS_UNTRUSTED where the file holds no certificate or cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=coordinator.root_certificates.read_text(encoding="ascii"))
    except OSError as error:
        if not isinstance(error, ssl.SSLError):
            raise SemcError(
                ExitCode.TLS_UNTRUSTED,
                f"The coordinator's CA certificate cannot be read ({error.strerror}).",
                "copy the CA certificate from the coordinator to coordinator.root_certificates",
            ) from error
        raise _not_a_certificate() from error
    except ValueError as error:  # an empty file, or bytes that are no text
        raise _not_a_certificate() from error
    return context


def _not_a_certificate() -> SemcError:
    return SemcError(
        ExitCode.TLS_UNTRUSTED,
        "The coordinator's CA certificate file holds no certificate.",
        "copy the CA certificate (PEM) from the coordinator to coordinator.root_certificates",
    )


def _failure(address: str, error: httpx.HTTPError) -> SemcError:
    """Tell a certificate that is not trusted from a server that does not answer."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return SemcError(
                ExitCode.TLS_UNTRUSTED,
                f"The certificate of {address} is not trusted: {cause.verify_message.rstrip('.')}.",
                "check this machine's clock; where it is right, ask the coordinator for a new certificate"
                if cause.verify_code in _NOT_NOW
                else "compare the CA certificate and the address with those the coordinator gave out",
            )
        if isinstance(cause, ssl.SSLError):
            return SemcError(
                ExitCode.SERVER_UNREACHABLE,
                f"{address} answers, but not with TLS.",
                "check coordinator.address: it must be the fleet port",
            )
        cause = cause.__cause__ or cause.__context__
    return SemcError(
        ExitCode.SERVER_UNREACHABLE,
        f"The coordinator {address} does not answer.",
        "check the address, that the coordinator runs, and that the firewall lets this host out",
    )


def _ahead(stated: str) -> float:
    """Return by how many seconds this clock is ahead of an HTTP date, which is cut to whole seconds."""
    then = parsedate_to_datetime(stated)
    return (datetime.now(UTC) - then).total_seconds() - 0.5
