"""The container images: one shared dependency layer, no root, no secrets, health checks, signals arrive."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from semc.config import load_study

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"
PARTS = ("server", "client")


def dockerfile(part: str) -> str:
    return (DOCKER / f"{part}.Dockerfile").read_text(encoding="utf-8")


def instruction(part: str, name: str) -> list[str]:
    joined = dockerfile(part).replace("\\\n", "")
    return re.findall(rf"^{name} (.*)$", joined, re.MULTILINE)


def compose(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DOCKER / name).read_text(encoding="utf-8"))
    return content


def test_both_images_share_every_layer_word_for_word() -> None:
    shared = [
        re.search(r"^ARG BASE.*?^# --- end of the shared part", dockerfile(p), re.M | re.S) for p in PARTS
    ]
    assert all(shared)
    texts = {match.group() for match in shared if match}
    assert len(texts) == 1
    own = dockerfile("server").split("# --- end of the shared part")[1]
    assert not re.search(r"^(RUN|COPY|ADD)", own, re.M), "a layer of its own would be built and stored twice"


@pytest.mark.parametrize("part", PARTS)
def test_programs_run_without_root_and_get_the_signal(part: str) -> None:
    assert instruction(part, "USER") == ["10001:10001"]
    (entry,) = instruction(part, "ENTRYPOINT")
    assert json.loads(entry)[0] == f"semc-{part}"  # the exec form: no shell between SIGTERM and the program
    assert instruction(part, "STOPSIGNAL") == ["SIGTERM"]
    assert instruction(part, "VOLUME") == ['["/var/lib/semc"]']


@pytest.mark.parametrize("part", PARTS)
def test_health_check_speaks_grpc_health_and_is_valid_python(part: str) -> None:
    (line,) = instruction(part, "HEALTHCHECK")
    command = json.loads(line.split(" CMD ", 1)[1])
    assert command[:3] == ["python", "-P", "-c"]
    compile(command[3], "health check", "exec")
    assert "HealthStub" in command[3]


@pytest.mark.parametrize("part", PARTS)
def test_no_address_certificate_or_secret_enters_an_image(part: str) -> None:
    text = dockerfile(part)
    assert not re.search(r"https?://|index-url|trusted-host|find-links", text)
    assert not re.search(r"(COPY|ADD).*\.(pem|crt|key)", text)
    assert instruction(part, "ARG") == ["BASE=python:3.11-slim"]


def test_only_what_the_wheel_is_made_of_enters_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    packages = {"semc", "client", "server", "simulation"}
    assert allowed == packages | {"pyproject.toml", "requirements.lock", "README.md", "LICENSE"}


def test_rehearsal_has_the_smoke_study_s_sites_and_no_open_port() -> None:
    services = compose("compose.yaml")["services"]
    sites = load_study("phantom_smoke").federation.sites
    assert set(services) == {"coordinator", "owner", "hospitals", "study", *sites}
    for site in sites:
        assert services[site]["volumes"] == [f"{site}:/var/lib/semc"], "a hospital sees its own volume only"
    assert not any("ports" in service for service in services.values())


def test_long_running_services_are_read_only_without_capabilities() -> None:
    rehearsal = compose("compose.yaml")["services"]
    services = [rehearsal[name] for name in ("coordinator", "north", "south", "west", "hospitals", "study")]
    services.append(compose("compose.site.yaml")["services"]["client"])
    for service in services:
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_a_hospital_mounts_its_images_read_only_and_reserves_a_gpu() -> None:
    client = compose("compose.site.yaml")["services"]["client"]
    assert [volume for volume in client["volumes"] if volume.endswith(":/data:ro")]
    (device,) = client["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert "ports" not in client


def test_workflow_actions_are_pinned_to_commits() -> None:
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    uses = re.findall(r"uses: (\S+)", workflow)
    assert uses
    assert [action for action in uses if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action)] == []


def test_scripts_are_valid_and_executable() -> None:
    for script in (DOCKER / "rehearse.sh", ROOT / ".ci/run"):
        assert script.stat().st_mode & 0o111
        assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0
