"""Each way a coordinator can be wrong has its own exit code, met over a real TLS socket."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from client.coordinator import Answer, ask, check_clock
from semc.config.site import CoordinatorConfig
from semc.exit_codes import ExitCode, SemcError
from simulation.rehearsal import free_port
from tests.client.loopback_tls import Authority, https_server


def coordinator(address: str, ca: Path) -> CoordinatorConfig:
    return CoordinatorConfig(address=address, root_certificates=ca)


def test_a_trusted_coordinator_answers(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    with https_server(authority.server_context(days=30)) as address:
        answer = ask(coordinator(address, authority.file))
    assert 29.9 < answer.certificate_days < 30
    assert answer.clock_ahead_seconds is not None
    assert abs(answer.clock_ahead_seconds) < 2


def failure(address: str, ca: Path) -> SemcError:
    with pytest.raises(SemcError) as caught:
        ask(coordinator(address, ca), timeout_seconds=3)
    return caught.value


def test_another_ca_is_not_trusted(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path, "ca"), Authority(tmp_path, "other")
    with https_server(authority.server_context()) as address:
        error = failure(address, other.file)
    assert error.code is ExitCode.TLS_UNTRUSTED
    assert "unable to get local issuer certificate" in error.problem


def test_an_expired_certificate_is_not_trusted(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    with https_server(authority.server_context(days=-1)) as address:
        error = failure(address, authority.file)
    assert error.code is ExitCode.TLS_UNTRUSTED
    assert "expired" in error.problem
    assert "clock" in error.fix


def test_a_certificate_for_another_host_is_not_trusted(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    with https_server(authority.server_context(host="elsewhere.example")) as address:
        error = failure(address, authority.file)
    assert error.code is ExitCode.TLS_UNTRUSTED
    assert "not valid for" in error.problem


def test_a_missing_or_empty_ca_file_is_named_as_such(tmp_path: Path) -> None:
    empty = tmp_path / "empty.crt"
    empty.touch()
    text, binary = tmp_path / "text.crt", tmp_path / "binary.crt"
    text.write_text("nothing")
    binary.write_bytes(b"\xff\x00")
    for file in (empty, text, binary, tmp_path / "absent.crt"):
        assert failure("127.0.0.1:9", file).code is ExitCode.TLS_UNTRUSTED


def test_nobody_listening_is_unreachable(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    assert failure(f"127.0.0.1:{free_port()}", authority.file).code is ExitCode.SERVER_UNREACHABLE


def test_a_server_without_tls_is_unreachable_as_a_coordinator(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    with https_server(None) as address:
        error = failure(address, authority.file)
    assert error.code is ExitCode.SERVER_UNREACHABLE
    assert "not with TLS" in error.problem


def test_the_clock_is_compared(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    behind = format_datetime(datetime.now(UTC) - timedelta(seconds=20), usegmt=True)
    with https_server(authority.server_context(), date=behind) as address:
        answer = ask(coordinator(address, authority.file))
    with pytest.raises(SemcError) as caught:
        check_clock(answer)
    assert caught.value.code is ExitCode.CLOCK_SKEW


@pytest.mark.parametrize(
    ("ahead", "refused"), [(0, False), (4, False), (6, True), (-299, False), (-301, True)]
)
def test_the_limits_are_flowers(ahead: float, refused: bool) -> None:
    answer = Answer(certificate_days=1, clock_ahead_seconds=ahead)
    if refused:
        with pytest.raises(SemcError):
            check_clock(answer)
    else:
        check_clock(answer)
