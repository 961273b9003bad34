"""Checks of the way to the coordinator: CA file, address, certificate, clock, proxy, health service."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from client.coordinator import ALLOWED_AHEAD_SECONDS, Answer, ask, check_clock
from client.doctor.row import Row, checked, passed, skipped, warning, wrong
from semc.config import SiteConfig
from semc.config.site import CoordinatorConfig
from semc.exit_codes import ExitCode, SemcError

MIN_CERTIFICATE_DAYS: Final = 14.0
WARN_CLOCK_SECONDS: Final = 2.0
_HEALTH_TIMEOUT_SECONDS: Final = 5.0


def network_rows(site: SiteConfig) -> Iterator[Row]:
    """Yield what stands between this site and the coordinator."""
    coordinator = site.coordinator
    if coordinator is None:
        yield skipped("coordinator", "the site file names none (simulation)")
        return
    yield _authority(coordinator)
    yield _proxy()
    try:
        answer = ask(coordinator)
    except SemcError as error:
        yield wrong("coordinator", error)
    else:
        yield passed("coordinator", f"{coordinator.address} answers, certificate trusted")
        yield _expiry("coordinator certificate", answer.certificate_days, "ask the coordinator to renew it")
        yield _clock(answer)
        yield skipped(
            "registration", "only joining tells whether the coordinator has enrolled this site's key"
        )
    if coordinator.health_address is not None:
        address = coordinator.health_address
        yield checked("coordinator health", lambda: _health(address))


def _authority(coordinator: CoordinatorConfig) -> Row:
    """Read the CA certificate."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    name, fix = "CA certificate", "copy the CA certificate (PEM) from the coordinator"
    try:
        certificate = x509.load_pem_x509_certificate(coordinator.root_certificates.read_bytes())
    except (OSError, ValueError):
        return Row(name, "wrong", "missing or not a certificate", fix, ExitCode.TLS_UNTRUSTED)
    days = (certificate.not_valid_after_utc - datetime.now(UTC)).total_seconds() / 86_400
    row = _expiry(name, days, fix)
    fingerprint = certificate.fingerprint(hashes.SHA256()).hex(":").upper()
    return replace(row, found=f"{row.found}; compare by telephone: SHA-256 {fingerprint}")


def _expiry(name: str, days: float, fix: str) -> Row:
    if days < 0:
        return Row(name, "wrong", f"expired {-days:.0f} days ago", fix, ExitCode.TLS_UNTRUSTED)
    if days < MIN_CERTIFICATE_DAYS:
        return warning(name, f"expires in {days:.0f} days", fix)
    return passed(name, f"valid for {days:.0f} days")


def _clock(answer: Answer) -> Row:
    if answer.clock_ahead_seconds is None:
        return skipped("clock", "the coordinator states no time")
    try:
        check_clock(answer)
    except SemcError as error:
        return wrong("clock", error)
    ahead = answer.clock_ahead_seconds
    if abs(ahead) > WARN_CLOCK_SECONDS:
        limit = f"signatures are refused from {ALLOWED_AHEAD_SECONDS:.0f} s ahead on; synchronise the clock"
        return warning("clock", f"{ahead:+.0f} s against the coordinator", limit)
    return passed("clock", "agrees with the coordinator")


def _proxy() -> Row:
    """Name the proxy Flower will use, without its password."""
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        if os.environ.get(name):
            host = urllib.parse.urlsplit(os.environ[name]).hostname or "unreadable"
            return passed("proxy", f"{host} (from {name})")
    return passed("proxy", "none")


def _health(address: str) -> str:
    """Ask the coordinator's gRPC health service."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    fix = "check coordinator.health_address, or ask the coordinator whether its SuperLink runs"
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=_HEALTH_TIMEOUT_SECONDS
            )
        except grpc.RpcError as error:
            raise SemcError(
                ExitCode.SERVER_UNREACHABLE, "The coordinator's health service does not answer.", fix
            ) from error
    if reply.status != health_pb2.HealthCheckResponse.SERVING:
        raise SemcError(ExitCode.SERVER_UNREACHABLE, "The coordinator is not serving.", fix)
    return "serving"
