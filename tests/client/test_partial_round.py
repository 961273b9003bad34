"""A round that was interrupted goes on where it was saved and ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import Tensor

import semc.training.trainer
from client.partial_round import PARTIAL
from client.private_round import PrivateSiteTrainer
from client.progress import Progress
from client.round_log import read_rounds
from client.round_update import RoundUpdate
from client.training_round import SiteTrainer
from semc.checkpoint import load_state, save_state
from semc.config import SiteConfig, StudyConfig, parse_study
from semc.models import build_model
from semc.parameter_exchange import split_parameters
from semc.protocol import TRAIN_SECONDS
from tests.client.private_site import PRIVATE_TEXT, private_site
from tests.client.small_study import STUDY_TEXT
from tests.client.test_training_round import counts, same, saved

STEPS = 4
BASE = {"training.local_steps": STEPS}
FEDPROX = {"federation.algorithm": "fedprox", "federation.proximal_mu": 2.0}
STUDIES: dict[str, dict[str, object]] = {
    "clear": {"objective.queue_on_update": "clear"},
    "keep": {"objective.queue_on_update": "keep"},
    "refresh": {"objective.queue_on_update": "refresh"},
    "slow key encoder": {"objective.key_encoder": "ema"},
    "running mean losses": {"objective.alpha": "prior"},
    "fedprox": FEDPROX,
    "no momentum, no amp": {"training.momentum": 0.0, "training.amp": "off"},
    "fedbn": {"federation.bn": "fedbn"},
    "classification": {"objective.name": "classification", **FEDPROX},
}


class Lost(Exception):
    """Stands for whatever ends a process within a round."""


def lost_before(step: int) -> Callable[[Progress], None]:
    """Return a listener that ends a round when `step` of its steps are done."""

    def report(progress: Progress) -> None:
        if progress.phase == "training" and progress.done == step:
            raise Lost

    return report


def study_of(changes: dict[str, object]) -> StudyConfig:
    return parse_study(STUDY_TEXT, {**BASE, **changes})


def first_weights(study: StudyConfig) -> dict[str, Tensor]:
    return split_parameters(build_model(study), study.federation.bn).shared


@pytest.fixture
def site(site: SiteConfig) -> SiteConfig:
    """Return the hospital with a point saved after every step."""
    return site.model_copy(update={"checkpoint_seconds": 0.0})


def second_round(site: SiteConfig, study: StudyConfig) -> tuple[dict[str, Tensor], RoundUpdate]:
    """Train two rounds without a break; returns the weights of the second round and what it ended with."""
    trainer = SiteTrainer(site, study)
    incoming = trainer.run_round(1, first_weights(study)).shared
    return incoming, trainer.run_round(2, incoming)


def back_to_round_one(site: SiteConfig, study: StudyConfig, folder: Path) -> SiteConfig:
    """Return the site as it was before its second round, in a folder of its own."""
    source = site.state_directory / study.digest()[:16]
    shutil.copytree(source / "round-00001", folder / source.name / "round-00001")
    return site.model_copy(update={"state_directory": folder})


def partial_of(site: SiteConfig, study: StudyConfig) -> Path:
    return site.state_directory / study.digest()[:16] / PARTIAL


def begin(site: SiteConfig, study: StudyConfig, incoming: dict[str, Tensor], step: int) -> None:
    with pytest.raises(Lost):
        SiteTrainer(site, study).run_round(2, incoming, lost_before(step))


def go_on(site: SiteConfig, study: StudyConfig, incoming: dict[str, Tensor]) -> tuple[RoundUpdate, list[int]]:
    """Repeat the message in a new trainer; returns the update and the steps it did, by number."""
    told: list[Progress] = []
    update = SiteTrainer(site, study).run_round(2, incoming, told.append)
    return update, [item.done for item in told if item.phase == "training" and item.loss is None]


@pytest.mark.parametrize("name", STUDIES)
def test_an_interrupted_round_ends_as_if_nothing_had_happened(
    site: SiteConfig, tmp_path: Path, name: str
) -> None:
    study = study_of(STUDIES[name])
    incoming, whole = second_round(site, study)
    for step in (1, STEPS - 1):
        again = back_to_round_one(site, study, tmp_path / f"lost-{step}")
        begin(again, study, incoming, step)
        update, done = go_on(again, study, incoming)
        assert done == list(range(step, STEPS)), "no step is done twice"
        assert same(update.shared, whole.shared)
        assert counts(update) == counts(whole)
        assert same(saved(again, study, 2), saved(site, study, 2))
        assert (
            read_rounds(partial_of(again, study).parent)[-1]
            == read_rounds(partial_of(site, study).parent)[-1]
        )
        assert not partial_of(again, study).exists()


def test_a_round_may_be_lost_again_and_again(site: SiteConfig, tmp_path: Path) -> None:
    study = study_of({})
    incoming, whole = second_round(site, study)
    again = back_to_round_one(site, study, tmp_path / "again")
    for step in range(STEPS):
        begin(again, study, incoming, step)
    update, done = go_on(again, study, incoming)
    assert done == [STEPS - 1]
    assert same(update.shared, whole.shared)


def test_without_the_generators_the_round_ends_differently(
    site: SiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what a study draws within a round is part of the point."""
    study = study_of({})
    incoming, whole = second_round(site, study)
    again = back_to_round_one(site, study, tmp_path / "again")
    begin(again, study, incoming, 2)
    monkeypatch.setattr(semc.training.trainer, "restore_random_state", lambda *_: None)
    update, _ = go_on(again, study, incoming)
    assert not same(update.shared, whole.shared)


def test_a_killed_process_leaves_a_round_another_one_finishes(site: SiteConfig, tmp_path: Path) -> None:
    study = study_of({})
    incoming, whole = second_round(site, study)
    again = back_to_round_one(site, study, tmp_path / "again")
    (tmp_path / "site.json").write_text(again.model_dump_json(), encoding="utf-8")
    (tmp_path / "study.yaml").write_text(study.to_yaml(), encoding="utf-8")
    save_file(incoming, tmp_path / "weights")
    command = [sys.executable, "-m", "tests.client.begun_round"]
    command += [str(tmp_path / name) for name in ("site.json", "study.yaml", "weights")]
    with subprocess.Popen([*command, "2", "3"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "3":
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    update, done = go_on(again, study, incoming)
    assert done == [3]
    assert same(update.shared, whole.shared)
    assert counts(update) == counts(whole)
    assert same(saved(again, study, 2), saved(site, study, 2))


def test_another_message_does_not_take_it_up(site: SiteConfig, tmp_path: Path) -> None:
    study = study_of({})
    incoming, _ = second_round(site, study)
    other = {name: tensor * 0.5 for name, tensor in incoming.items()}
    again, fresh = (back_to_round_one(site, study, tmp_path / name) for name in ("again", "fresh"))
    begin(again, study, incoming, 3)
    update, done = go_on(again, study, other)
    assert done == list(range(STEPS))
    assert same(update.shared, go_on(fresh, study, other)[0].shared)


def spoil(folder: Path) -> None:
    (tensors,) = folder.glob("*.safetensors")
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)


def take_out(folder: Path) -> None:
    tensors, metadata = load_state(folder)
    del tensors[next(name for name in tensors if name.startswith("objective/queue"))]
    save_state(folder, tensors, metadata)


@pytest.mark.parametrize("damage", [spoil, take_out])
def test_a_damaged_point_is_told_and_the_round_begins_again(
    site: SiteConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    study = study_of({})
    incoming, whole = second_round(site, study)
    again = back_to_round_one(site, study, tmp_path / "again")
    begin(again, study, incoming, 3)
    damage(partial_of(again, study))
    update, done = go_on(again, study, incoming)
    assert done[-STEPS:] == list(range(STEPS))
    assert "damaged" in caplog.text
    assert same(update.shared, whole.shared)
    assert counts(update) == counts(whole)


def test_a_point_that_cannot_be_written_does_not_stop_the_round(
    site: SiteConfig, caplog: pytest.LogCaptureFixture
) -> None:
    study = study_of({})
    folder = partial_of(site, study)
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        SiteTrainer(site, study).run_round(1, first_weights(study))
    assert caplog.text.count("the begun round could not be saved") == 1, "told once, not at every step"


def test_points_are_as_far_apart_as_the_site_says(site: SiteConfig) -> None:
    study = study_of({})
    seldom = site.model_copy(update={"checkpoint_seconds": 3600.0})
    with pytest.raises(Lost):
        SiteTrainer(seldom, study).run_round(1, first_weights(study), lost_before(STEPS - 1))
    assert not partial_of(site, study).exists()
    with pytest.raises(Lost):
        SiteTrainer(site, study).run_round(1, first_weights(study), lost_before(STEPS - 1))
    assert load_state(partial_of(site, study))[1]["steps"] == STEPS - 1


def test_the_time_before_the_loss_counts(site: SiteConfig, tmp_path: Path) -> None:
    study = study_of({})
    incoming, _ = second_round(site, study)
    again = back_to_round_one(site, study, tmp_path / "again")
    begin(again, study, incoming, 2)
    tensors, metadata = load_state(partial_of(again, study))
    save_state(partial_of(again, study), tensors, {**metadata, "seconds": 1000.0})
    update, _ = go_on(again, study, incoming)
    seconds = update.metrics[TRAIN_SECONDS]
    assert isinstance(seconds, float)
    assert 1000 < seconds < 1100


def test_a_private_round_keeps_no_point(tmp_path: Path) -> None:
    site = private_site(tmp_path).model_copy(update={"checkpoint_seconds": 0.0})
    study = parse_study(PRIVATE_TEXT)

    def lost(progress: Progress) -> None:
        if progress.phase == "training" and progress.done == 1:
            raise Lost

    with pytest.raises(Exception, match="INTERNAL"):
        PrivateSiteTrainer(site, study).run_round(1, first_weights(study), lost)
    assert not partial_of(site, study).exists()
