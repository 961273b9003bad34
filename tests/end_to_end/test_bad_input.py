"""Bad input given to the real programs: the number, the fix, one line, and nothing of the hospital in it."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from client.identity import create_identity
from semc.exit_codes import ExitCode
from simulation.rehearsal import free_port
from tests.client.loopback_tls import Authority
from tests.end_to_end.conftest import STUDY
from tests.end_to_end.test_coordinator_up import Coordinator, run, start

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Place:
    """One hospital's folder with a key, and the study it is asked to take part in."""

    root: Path
    coordinator: Coordinator

    @property
    def study(self) -> Path:
        return self.root / "study.yaml"

    def rows(self) -> Rows:
        with (self.root / "manifest.csv").open(newline="") as stream:
            return list(csv.DictReader(stream))

    def rewrite_rows(self, rows: Rows) -> None:
        with (self.root / "manifest.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)

    def configure(self, file: str, section: str | None = None, **values: Any) -> None:
        content = yaml.safe_load((self.root / file).read_text())
        target = content if section is None else content.setdefault(section, {})
        target.update(values)
        (self.root / file).write_text(yaml.safe_dump(content))

    def dial(self, address: str, authority: Path) -> None:
        self.configure("site.yaml", "coordinator", address=address, root_certificates=str(authority))

    def check(self) -> tuple[str, ...]:
        command = ("semc-client", "check", "--site", str(self.root), "--study", str(self.study))
        return (*command, "--every-image", "--format", "json")

    def join(self) -> tuple[str, ...]:
        return ("semc-client", "join", "--site", str(self.root), "--wait", "0")


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    running = start(tmp_path_factory.mktemp("coordinator") / "home")
    yield running
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(30)


@pytest.fixture
def place(hospitals: Path, coordinator: Coordinator, tmp_path: Path) -> Place:
    root = tmp_path / "doe-clinic"
    shutil.copytree(hospitals / "north", root)
    (root / "study.yaml").write_text(STUDY)
    create_identity(root / "site.key", "north")
    return Place(root, coordinator)


def unknown_key_in_the_study(place: Place) -> tuple[str, ...]:
    place.configure("study.yaml", "training", learning_rat=0.1)
    return ("semc-server", "run", str(place.study), "--home", str(place.coordinator.home.root))


def unknown_key_at_the_site(place: Place) -> tuple[str, ...]:
    place.configure("site.yaml", stranger=1)
    return ("semc-client", "--site", str(place.root))


def missing_folder(place: Place) -> tuple[str, ...]:
    place.configure("site.yaml", "data", root="jane-doe-images")
    return place.check()


def unreadable_image(place: Place) -> tuple[str, ...]:
    victim = place.root / place.rows()[3]["file"]
    victim.write_bytes(victim.read_bytes()[:-40])
    return place.check()


def unknown_class(place: Place) -> tuple[str, ...]:
    rows = place.rows()
    rows[3]["label"] = "liver"
    place.rewrite_rows(rows)
    return place.check()


def empty_split(place: Place) -> tuple[str, ...]:
    place.rewrite_rows([row | {"split": "test"} for row in place.rows()])
    return place.check()


def one_class(place: Place) -> tuple[str, ...]:
    place.rewrite_rows([row for row in place.rows() if row["label"] == "head" or row["split"] == "test"])
    return place.check()


def fewer_images_than_a_batch(place: Place) -> tuple[str, ...]:
    place.configure("study.yaml", "training", batch_size=32)
    return place.check()


def wrong_mode(place: Place) -> tuple[str, ...]:
    victim = place.root / place.rows()[3]["file"]
    Image.new("I;16", (32, 32)).save(victim)
    return place.check()


def other_model_than_approved(place: Place) -> tuple[str, ...]:
    place.configure("site.yaml", expected_model={"backbone": "resnet50"})
    return place.check()


def unreachable(place: Place) -> tuple[str, ...]:
    place.dial(f"127.0.0.1:{free_port()}", place.coordinator.home.ca_certificate)
    return place.join()


def wrong_authority(place: Place) -> tuple[str, ...]:
    place.dial(place.coordinator.address, Authority(place.root, "other").file)
    return place.join()


def unregistered_key(place: Place) -> tuple[str, ...]:
    place.dial(place.coordinator.address, place.coordinator.home.ca_certificate)
    return place.join()


def assert_nothing_of_the_hospital(place: Place, shown: str) -> None:
    names = {Path(row["file"]).name for row in place.rows()} | {row["group"] for row in place.rows()}
    names |= {str(place.root), place.root.name, "jane-doe-images", "manifest.csv", "images/", ".png"}
    assert [name for name in names if name in shown] == []


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (unknown_key_in_the_study, ExitCode.CONFIG_INVALID),
        (unknown_key_at_the_site, ExitCode.CONFIG_INVALID),
        (missing_folder, ExitCode.DATA_NOT_FOUND),
        (unreadable_image, ExitCode.DATA_UNREADABLE),
        (unknown_class, ExitCode.LABEL_UNKNOWN),
        (empty_split, ExitCode.SPLIT_EMPTY),
        (one_class, ExitCode.CLASSES_TOO_FEW),
        (fewer_images_than_a_batch, ExitCode.IMAGES_TOO_FEW),
        (wrong_mode, ExitCode.IMAGE_MODE),
        (other_model_than_approved, ExitCode.STUDY_MISMATCH),
        (unreachable, ExitCode.SERVER_UNREACHABLE),
        (unregistered_key, ExitCode.KEY_UNREGISTERED),
        (wrong_authority, ExitCode.TLS_UNTRUSTED),
    ],
)
def test_bad_input_is_told_in_one_line(
    place: Place, prepare: Callable[[Place], tuple[str, ...]], code: ExitCode
) -> None:
    command = prepare(place)
    done = run(*command)
    assert done.returncode == code, done.stderr
    assert_nothing_of_the_hospital(place, done.stdout + done.stderr)
    if "check" in command:
        assert done.stderr == ""
        (row,) = [row for row in json.loads(done.stdout)["rows"] if row["state"] == "wrong"]
        assert row["code"] == code.name
        assert row["found"]
        assert row["fix"]
        assert "\n" not in row["found"] + row["fix"]
    else:
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"error {int(code)} {code.name}: ")
        assert " Fix: " in line


def test_the_same_hospital_without_a_fault_passes(place: Place) -> None:
    done = run(*place.check())
    assert done.returncode == ExitCode.OK, done.stdout
    assert {row["state"] for row in json.loads(done.stdout)["rows"]} <= {"passed", "skipped", "warning"}


def test_the_search_for_names_finds_them(place: Place) -> None:
    for shown in (place.rows()[0]["file"], place.rows()[0]["group"], f"{place.root}/site.yaml"):
        with pytest.raises(AssertionError):
            assert_nothing_of_the_hospital(place, f"error 21: {shown}")
