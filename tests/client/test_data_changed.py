"""A site whose images changed between two rounds says so, and goes on once its hospital has accepted them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor
from typer.testing import CliRunner

from client.cli import app
from client.outbox import REPLIES
from client.refusal import refusal_of
from client.round_update import RoundUpdate
from client.site import WarmSite
from client.training_round import SiteTrainer
from semc.config import parse_study
from semc.exit_codes import ExitCode, SemcError
from semc.models import build_model
from semc.parameter_exchange import split_parameters
from semc.protocol import RefusalCode
from tests.client.private_site import PRIVATE_TEXT, private_site
from tests.client.small_study import STUDY_TEXT, write_site
from tests.client.test_data_fingerprint import turn_a_pixel
from tests.client.test_training_round import FIRST, same, saved

STUDY = parse_study(STUDY_TEXT, {"objective.queue_on_update": "keep", "federation.rounds": 4})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the site file of a hospital of its own, because its images are changed."""
    written = write_site(tmp_path / "hospital")
    turn_a_pixel(
        images(written)[0]
    )  # stores it without compression: all its pixels cost the same from here on
    return written


def trainer(warm: WarmSite) -> SiteTrainer:
    found = warm.trainer(STUDY)
    assert isinstance(found, SiteTrainer)
    return found


def images(file: Path) -> list[Path]:
    return sorted((file.parent / "images").rglob("*.png"))


def manifest(file: Path) -> Path:
    return file.parent / "images" / "manifest.csv"


def add(file: Path) -> None:
    shutil.copy(images(file)[0], file.parent / "images" / "new.png")
    turn_a_pixel(file.parent / "images" / "new.png")
    header, first, *rest = manifest(file).read_text().splitlines()
    cells = dict(zip(header.split(","), first.split(","), strict=True)) | {"file": "new.png"}
    manifest(file).write_text("\n".join([header, first, *rest, ",".join(cells.values())]) + "\n")


def remove(file: Path) -> None:
    header, first, *rest = manifest(file).read_text().splitlines()
    manifest(file).write_text("\n".join([header, *rest]) + "\n")
    (file.parent / "images" / first.split(",")[0]).unlink()


def change_a_pixel(file: Path) -> None:
    """Change one pixel; the file keeps its size."""
    size = images(file)[0].stat().st_size
    turn_a_pixel(images(file)[0])
    assert images(file)[0].stat().st_size == size


def change_a_label(file: Path) -> None:
    lines = manifest(file).read_text().splitlines()
    place = lines[0].split(",").index("label")
    cells = lines[1].split(",")
    cells[place] = "femur" if cells[place] != "femur" else "head"
    manifest(file).write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "added": (add, "1 added, 0 removed, 0 changed"),
    "removed": (remove, "0 added, 1 removed, 0 changed"),
    "label": (change_a_label, "0 added, 0 removed, 1 changed"),
    "pixel": (change_a_pixel, "0 added, 0 removed, 1 changed"),
}


def first_round(warm: WarmSite) -> dict[str, Tensor]:
    return trainer(warm).run_round(1, FIRST).shared


def refused(warm: WarmSite, shared: dict[str, Tensor], round_number: int = 2) -> SemcError:
    with pytest.raises(SemcError) as caught:
        trainer(warm).run_round(round_number, shared)
    assert caught.value.code is ExitCode.DATA_CHANGED
    assert refusal_of(caught.value) is RefusalCode.DATA_CHANGED
    return caught.value


def accept(file: Path) -> dict[str, object]:
    done = CliRunner().invoke(app, ["accept-data", "--site", str(file), "--format", "json"])
    assert done.exit_code == 0, done.output
    content = json.loads(done.output)
    assert isinstance(content, dict)
    return content


@pytest.mark.parametrize("kind", CHANGES)
def test_changed_data_are_refused_then_accepted(
    file: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The process that trains lives all the while; nothing of its warm data is used after the change."""
    warm = WarmSite(file)
    shared = first_round(warm)
    make, counted = CHANGES[kind]
    make(file)
    error = refused(warm, shared)
    assert counted in error.problem
    assert "accept-data --site north" in error.fix
    assert "images/" not in error.line()
    with pytest.raises(SemcError):
        trainer(warm).evaluate(shared, 1)
    accepted = accept(file)
    assert (
        f"{accepted['added']} added, {accepted['removed']} removed, {accepted['changed']} changed" == counted
    )
    caplog.set_level("INFO")
    update = trainer(warm).run_round(2, shared)
    assert "starts anew" in caplog.text
    assert update.metrics["num-examples"] == len(trainer(warm)._data.train)
    caplog.clear()
    trainer(warm).run_round(3, update.shared)
    assert "starts anew" not in caplog.text, "from here on these are the data of the last round"


def test_the_memory_of_old_images_is_dropped_and_the_rest_stays(file: Path) -> None:
    warm = WarmSite(file)
    shared = first_round(warm)
    before = saved(warm.config, STUDY, 1)
    add(file)
    accept(file)
    trainer(warm).run_round(2, shared)
    after = saved(warm.config, STUDY, 2)
    assert int(before["objective/queue.valid"].sum()) == 8
    assert int(after["objective/queue.valid"].sum()) == 8, "the keys of one round, not of two"
    counter = next(name for name in before if name.endswith("num_batches_tracked"))
    assert int(after[counter]) > int(before[counter]), "batch-norm statistics go on"


def test_a_round_after_an_accepted_change_can_be_repeated_bit_for_bit(file: Path) -> None:
    warm = WarmSite(file)
    shared = first_round(warm)
    add(file)
    accept(file)
    update = trainer(warm).run_round(2, shared)
    left = saved(warm.config, STUDY, 2)
    shutil.rmtree(warm.config.state_directory / STUDY.digest()[:16] / REPLIES)
    again = trainer(WarmSite(file)).run_round(2, shared)
    assert same(again.shared, update.shared)
    assert same(saved(warm.config, STUDY, 2), left)


def test_a_touched_file_is_no_change(file: Path) -> None:
    warm = WarmSite(file)
    shared = first_round(warm)
    for image in (*images(file), manifest(file)):
        os.utime(image, ns=(1, 1))
    trainer(warm).run_round(2, shared)
    trainer(WarmSite(file)).run_round(3, shared)


def test_an_acceptance_holds_for_these_very_data(file: Path) -> None:
    warm = WarmSite(file)
    shared = first_round(warm)
    add(file)
    accept(file)
    accepted = images(file)[1].read_bytes()
    turn_a_pixel(images(file)[1])
    assert "1 added, 0 removed, 1 changed" in refused(warm, shared).problem
    images(file)[1].write_bytes(accepted)
    trainer(warm).run_round(2, shared)
    remove(file)
    refused(warm, shared, 3)


def test_data_that_are_restored_need_no_word(file: Path, tmp_path: Path) -> None:
    warm = WarmSite(file)
    shared = first_round(warm)
    shutil.copytree(file.parent / "images", tmp_path / "backup")
    remove(file)
    refused(warm, shared)
    shutil.rmtree(file.parent / "images")
    shutil.copytree(tmp_path / "backup", file.parent / "images")
    trainer(warm).run_round(2, shared)


def test_a_reply_that_was_made_before_the_change_is_still_sent(file: Path) -> None:
    warm = WarmSite(file)
    update = trainer(warm).run_round(1, FIRST)
    add(file)
    again: RoundUpdate = trainer(warm).run_round(1, FIRST)
    assert same(again.shared, update.shared)
    assert again.metrics == update.metrics


def test_another_study_begins_with_the_data_there_are(file: Path) -> None:
    warm = WarmSite(file)
    first_round(warm)
    add(file)
    other = warm.trainer(parse_study(STUDY_TEXT, {"seed": 9}))
    other.run_round(1, FIRST)


def test_a_private_study_is_not_asked(tmp_path: Path) -> None:
    """Whether a site answers must depend on no single patient, so it does not look for changes."""
    study = parse_study(PRIVATE_TEXT)
    site = private_site(tmp_path)
    file = tmp_path / "site.yaml"
    shared = split_parameters(build_model(study), study.federation.bn).shared
    WarmSite(file).trainer(study).run_round(1, shared)
    turn_a_pixel(images(file)[0])
    WarmSite(file).trainer(study).run_round(2, shared)
    assert not (site.state_directory / "data").exists()


def test_the_command_in_words(file: Path) -> None:
    done = CliRunner().invoke(app, ["accept-data", "--site", str(file)])
    assert done.exit_code == 0
    assert "accepted  " in done.output
    assert "changes   unknown since" in done.output
