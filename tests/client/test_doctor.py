"""The preflight names what is wrong, with its fix and its exit code, and changes nothing."""

from __future__ import annotations

import csv
import json
import shutil
import socket
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from client.doctor import Report, examine
from client.identity import create_identity
from client.lock import held
from semc.exit_codes import ExitCode
from simulation.rehearsal import free_port
from tests.client.loopback_tls import Authority, https_server
from tests.client.small_study import STUDY_TEXT, write_site


@pytest.fixture
def site_file(hospital: Path, tmp_path: Path) -> Path:
    """Return a hospital with a key and no coordinator: everything passes."""
    create_identity(tmp_path / "site.key", "north")
    content = yaml.safe_load(hospital.read_text())
    content |= {"data": {"root": str(hospital.parent / "images")}, "runtime_port": free_port()}
    return rewrite(tmp_path / "site.yaml", content)


def rewrite(file: Path, changes: dict[str, Any]) -> Path:
    content = yaml.safe_load(file.read_text()) if file.is_file() else {}
    file.write_text(yaml.safe_dump(content | changes))
    return file


def states(report: Report) -> dict[str, str]:
    return {row.name: row.state for row in report.rows}


def only_error(report: Report, name: str) -> ExitCode:
    errors = [row for row in report.rows if row.state == "wrong"]
    assert [row.name for row in errors] == [name], errors
    assert errors[0].fix
    assert errors[0].code is report.exit_code()
    return report.exit_code()


def test_a_sound_site_passes_every_check(site_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plenty = shutil.disk_usage(site_file.parent)._replace(free=200 * 10**9)  # whatever this machine has left
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: plenty)
    before = sorted(path.name for path in site_file.parent.iterdir())
    report = examine(site_file)
    assert report.exit_code() is ExitCode.OK
    assert set(states(report).values()) <= {"passed", "skipped"}
    assert len(report.rows) >= 14
    after = sorted(path.name for path in site_file.parent.iterdir())
    assert after == before


def test_a_running_client_holds_its_ports_and_nothing_else_does(site_file: Path) -> None:
    lock = site_file.parent / "state" / "client.lock"
    with held(lock, "running", "-"):
        assert states(examine(site_file))["ports"] == "skipped"
    assert states(examine(site_file))["runtime port"] == "passed"
    lock.unlink()
    lock.parent.rmdir()
    lock.parent.write_text("a file where the folder should be")
    assert states(examine(site_file))["runtime port"] == "passed"


def test_the_report_is_json_for_scripts(site_file: Path) -> None:
    content = json.loads(examine(site_file).to_json())
    assert (content["exit_code"], content["exit_name"]) == (0, "OK")
    assert set(content["rows"][0]) == {"check", "state", "found", "fix", "code"}


def test_a_study_is_checked_against_the_images(site_file: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(STUDY_TEXT)
    report = examine(site_file, str(study))
    assert states(report)["study"] == "passed"
    study.write_text(STUDY_TEXT.replace("femur", "liver"))
    assert only_error(examine(site_file, str(study)), "images") is ExitCode.LABEL_UNKNOWN
    study.write_text(STUDY_TEXT.replace("north, south", "east, south"))
    assert only_error(examine(site_file, str(study)), "study") is ExitCode.STUDY_MISMATCH
    study.write_text(
        STUDY_TEXT.replace("batch_size: 4", "batch_size: 400").replace("queue_size: 64", "queue_size: 512")
    )
    assert only_error(examine(site_file, str(study)), "images") is ExitCode.IMAGES_TOO_FEW


def test_an_unknown_key_stops_at_the_site_file(site_file: Path) -> None:
    rewrite(site_file, {"stranger": 1})
    report = examine(site_file)
    assert only_error(report, "site file") is ExitCode.CONFIG_INVALID
    assert len(report.rows) == 1


def test_a_missing_folder(site_file: Path) -> None:
    rewrite(site_file, {"data": {"root": "nowhere"}})
    assert only_error(examine(site_file), "images") is ExitCode.DATA_NOT_FOUND


def test_a_damaged_image_is_found_by_its_row(tmp_path: Path) -> None:
    create_identity(tmp_path / "site.key", "north")
    file = write_site(tmp_path, runtime_port=free_port())
    with (tmp_path / "images" / "manifest.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    victim = tmp_path / "images" / rows[3]["file"]
    victim.write_bytes(victim.read_bytes()[:-40])
    report = examine(file, every_image=True)
    assert only_error(report, "image pixels") is ExitCode.DATA_UNREADABLE
    assert "Row 5" in next(row.found for row in report.rows if row.state == "wrong")
    victim.write_bytes(b"not an image")
    assert only_error(examine(file), "images") is ExitCode.DATA_UNREADABLE


def test_a_patient_in_two_splits(tmp_path: Path) -> None:
    create_identity(tmp_path / "site.key", "north")
    file = write_site(tmp_path, runtime_port=free_port())
    manifest = tmp_path / "images" / "manifest.csv"
    with manifest.open() as stream:
        rows = list(csv.DictReader(stream))
    patient = next(row["group"] for row in rows if row["split"] == "test")
    rows[0]["group"] = patient
    with manifest.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert only_error(examine(file), "images") is ExitCode.SPLIT_LEAK


def test_a_missing_key_and_an_open_one(site_file: Path) -> None:
    key = site_file.parent / "site.key"
    key.chmod(0o644)
    assert only_error(examine(site_file), "site key") is ExitCode.KEY_INVALID
    key.unlink()
    assert only_error(examine(site_file), "site key") is ExitCode.KEY_INVALID


def test_several_errors_have_a_code_of_their_own(site_file: Path) -> None:
    (site_file.parent / "site.key").unlink()
    rewrite(site_file, {"data": {"root": "nowhere"}})
    assert examine(site_file).exit_code() is ExitCode.CHECK_FAILED


def test_a_missing_gpu(site_file: Path) -> None:
    rewrite(site_file, {"device": "cuda:63"})
    assert only_error(examine(site_file), "device") is ExitCode.DEVICE


def test_a_taken_health_port(site_file: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        rewrite(site_file, {"health_port": taken.getsockname()[1]})
        assert only_error(examine(site_file), "health port") is ExitCode.PORT_IN_USE


class TestCoordinator:
    """The way to the coordinator, over a real TLS socket."""

    def with_coordinator(self, file: Path, address: str, ca: Path, **changes: Any) -> Report:
        section = {"address": address, "root_certificates": str(ca), **changes}
        return examine(rewrite(file, {"coordinator": section}))

    def test_all_is_well(self, site_file: Path, tmp_path: Path) -> None:
        authority = Authority(tmp_path, "ca")
        with https_server(authority.server_context(days=30)) as address:
            report = self.with_coordinator(site_file, address, authority.file)
        assert report.exit_code() is ExitCode.OK
        assert states(report)["coordinator"] == states(report)["clock"] == "passed"

    def test_a_certificate_that_ends_soon_is_a_warning(self, site_file: Path, tmp_path: Path) -> None:
        authority = Authority(tmp_path, "ca")
        with https_server(authority.server_context(days=3)) as address:
            report = self.with_coordinator(site_file, address, authority.file)
        assert report.exit_code() is ExitCode.OK
        assert states(report)["coordinator certificate"] == "warning"

    def test_wrong_ca(self, site_file: Path, tmp_path: Path) -> None:
        authority, other = Authority(tmp_path, "ca"), Authority(tmp_path, "other")
        with https_server(authority.server_context()) as address:
            report = self.with_coordinator(site_file, address, other.file)
        assert only_error(report, "coordinator") is ExitCode.TLS_UNTRUSTED

    def test_unreachable(self, site_file: Path, tmp_path: Path) -> None:
        report = self.with_coordinator(site_file, f"127.0.0.1:{free_port()}", Authority(tmp_path, "ca").file)
        assert only_error(report, "coordinator") is ExitCode.SERVER_UNREACHABLE

    def test_a_clock_that_would_lock_the_site_out(self, site_file: Path, tmp_path: Path) -> None:
        authority = Authority(tmp_path, "ca")
        date = "Thu, 01 Jan 2015 00:00:00 GMT"
        with https_server(authority.server_context(), date=date) as address:
            report = self.with_coordinator(site_file, address, authority.file)
        assert only_error(report, "clock") is ExitCode.CLOCK_SKEW

    def test_the_health_service_is_asked(self, site_file: Path, tmp_path: Path) -> None:
        authority = Authority(tmp_path, "ca")
        server = grpc.server(futures.ThreadPoolExecutor(1))
        servicer = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        serving, not_serving = (
            health_pb2.HealthCheckResponse.SERVING,
            health_pb2.HealthCheckResponse.NOT_SERVING,
        )
        with https_server(authority.server_context()) as address:
            ask = {"health_address": f"127.0.0.1:{port}"}
            servicer.set("", serving)
            report = self.with_coordinator(site_file, address, authority.file, **ask)
            assert states(report)["coordinator health"] == "passed"
            servicer.set("", not_serving)
            report = self.with_coordinator(site_file, address, authority.file, **ask)
            assert only_error(report, "coordinator health") is ExitCode.SERVER_UNREACHABLE
            server.stop(0).wait()
            report = self.with_coordinator(site_file, address, authority.file, **ask)
            assert only_error(report, "coordinator health") is ExitCode.SERVER_UNREACHABLE
