"""A round of private training: bound, noise, secrecy, and nothing else that moves."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from semc.config import StudyConfig
from semc.datasets import Batch, ManifestRow, PatientPool, SiteImages
from semc.exit_codes import ExitCode, SemcError
from semc.objectives import SemcDpObjective
from semc.seed import seed_everything
from semc.training.mode import in_mode
from tests.semc.training.private_tiny import (
    private_network,
    private_pool,
    private_study,
    private_trainer,
    trained,
    without_noise,
)

ROUNDS = {"global_step": 0, "total_steps": 12}


def movement(
    study: StudyConfig, pool: PatientPool, *, public_patients: int = 10, seed: int | None = 0
) -> Tensor:
    """Return how far a round moves the trained weights."""
    network = private_network(study)
    before = trained(network)
    private_trainer(study, network, public_patients=public_patients, seed=seed).train(pool, **ROUNDS)
    return before - trained(network)


@pytest.mark.parametrize("trainable", ["heads", "heads+projection", "adapters", "all"])
def test_removing_a_patient_moves_a_step_by_at_most_c_over_e(trainable: str, tmp_path: Path) -> None:
    """Through pool, memory of features, network, clipping and division; rate 1, one step, all patients drawn."""
    study = without_noise(
        private_study(privacy__trainable=trainable, training__local_steps=1, privacy__max_grad_norm=0.1),
        patient_fraction=1.0,
    )
    whole = movement(study, private_pool(tmp_path, study))
    rest = movement(study, private_pool(tmp_path, study, without=2))
    assert (whole - rest).norm().item() * 10 / 0.1 == pytest.approx(1.0, abs=1e-3)


def test_the_divisor_is_public_and_noise_has_its_size(tmp_path: Path) -> None:
    """sigma C / (q n_public), whatever the number of patients the site has."""
    study = private_study(
        privacy__noise_multiplier=4.0, privacy__max_grad_norm=0.01, training__local_steps=12
    )
    for num_patients in (1, 6):
        pool = private_pool(tmp_path, study, num_patients)
        moved = movement(study, pool, public_patients=40)
        assert moved.std().item() / 12**0.5 == pytest.approx(4.0 * 0.01 / (0.5 * 40), rel=0.06)


def test_runs_of_one_study_seed_differ(tmp_path: Path) -> None:
    study = private_study()
    pool = private_pool(tmp_path, study)

    def run(seed: int | None) -> Tensor:
        seed_everything(study.seed)
        return movement(study, pool, seed=seed)

    assert not torch.equal(run(None), run(None))
    assert torch.equal(run(5), run(5))  # the control: with a known stream they would not
    assert not torch.equal(run(5), run(6))


def test_rounds_of_one_trainer_have_their_own_secret(tmp_path: Path) -> None:
    study = private_study()
    network = private_network(study)
    trainer = private_trainer(study, network, seed=None)
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    ends = []
    for _ in range(2):  # a replay of the same round
        network.load_state_dict(start)
        trainer.train(private_pool(tmp_path, study), **ROUNDS)
        ends.append(trained(network))
    assert not torch.equal(*ends)


def test_nothing_of_the_secret_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    study = private_study(training__momentum=0.9)
    network = private_network(study)
    trainer = private_trainer(study, network, seed=None)
    trainer.train(private_pool(tmp_path, study), **ROUNDS)
    names = {f"momentum.{name}" for name, p in network.named_parameters() if p.requires_grad}
    assert trainer.state_dict().keys() == names
    assert repr(trainer._secret) == "None"  # made for each round, and gone with it
    assert [record for record in caplog.records if not record.name.startswith("PIL")] == []


def test_only_what_is_trained_moves(tmp_path: Path) -> None:
    """Batch-norm statistics and counters included: they are public and stay."""
    for trainable in ("heads", "all"):
        study = private_study(privacy__trainable=trainable)
        network = private_network(study)
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        modes = {module: module.training for module in network.modules()}
        private_trainer(study, network).train(private_pool(tmp_path, study), **ROUNDS)
        moved = {
            name for name, tensor in network.state_dict().items() if not torch.equal(before[name], tensor)
        }
        assert moved == {name for name, p in network.named_parameters() if p.requires_grad}
        assert modes == {module: module.training for module in network.modules()}


def test_a_site_without_patients_answers_with_noise(tmp_path: Path) -> None:
    study = private_study()
    pool = private_pool(tmp_path, study, num_patients=0)
    assert movement(study, pool).abs().min() > 0.0


def broken(root: Path, patient: int) -> None:
    """Leave the header and a beginning of each of a patient's images."""
    for frame in range(3):
        picture = root / f"p{patient}_{frame}.png"
        picture.write_bytes(picture.read_bytes()[:200])


@pytest.mark.parametrize("augmentation", ["none", "paper"])  # from the memory of features, and without it
def test_a_drawn_patient_who_cannot_be_read_counts_as_zero(
    augmentation: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = without_noise(private_study(data__augmentation=augmentation), patient_fraction=1.0)
    whole = movement(study, private_pool(tmp_path, study))
    rest = movement(study, private_pool(tmp_path, study, without=0))
    pool = private_pool(tmp_path, study)
    broken(tmp_path, 0)
    moved = movement(study, pool)
    assert not torch.equal(moved, whole)
    if augmentation == "none":  # else the others' augmentation is another in `rest`
        assert torch.equal(moved, rest)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("semc")]
    assert told == [
        "A patient counts as zero in training: Row 2: the image cannot be decoded."
    ]  # once, in 3 steps


def test_what_is_chosen_of_a_patient_does_not_depend_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames and augmentation, with a patient before them who is read, or fails before anything is augmented."""
    study = private_study(privacy__frames_per_patient=2, data__augmentation="paper")
    study = without_noise(study, patient_fraction=1.0)

    def failing(images: SiteImages, row: ManifestRow) -> NDArray[np.uint8]:
        if row.group == "p0":
            raise SemcError(ExitCode.DATA_UNREADABLE, f"Row {row.index}: the image cannot be decoded.", "")
        return read(images, row)

    def chosen() -> dict[str, list[Tensor]]:
        pool = private_pool(tmp_path, study)
        seen: dict[str, list[Tensor]] = {}
        load = pool.load

        def spied(rows: Sequence[ManifestRow], rng: np.random.Generator) -> Batch:
            batch = load(rows, rng)
            seen.setdefault(rows[0].group, []).append(batch.images_BCHW)
            return batch

        monkeypatch.setattr(pool, "load", spied)
        movement(study, pool)
        return seen

    read, whole = SiteImages.image, chosen()
    assert not torch.equal(*whole.pop("p0")[:2])  # the control: chance has a part in it
    monkeypatch.setattr(SiteImages, "image", failing)
    rest = chosen()
    assert rest.keys() == whole.keys()
    assert all(
        torch.equal(*pair) for patient in whole for pair in zip(whole[patient], rest[patient], strict=True)
    )


def test_it_learns_without_noise(tmp_path: Path) -> None:
    study = without_noise(
        private_study(training__local_steps=12, training__learning_rate=4.0, training__momentum=0.5),
        patient_fraction=1.0,
    )
    pool, network = private_pool(tmp_path, study), private_network(study)

    def loss() -> float:
        rng = np.random.default_rng(0)
        with torch.no_grad(), in_mode(network, training=False):
            batches = [pool.load(pool.frames(patient, rng), rng) for patient in range(pool.num_patients)]
            objective = SemcDpObjective(study)
            return sum(objective.loss(network(b.images_BCHW), b.labels_B).item() for b in batches)

    before = loss()
    private_trainer(study, network, public_patients=6).train(pool, **ROUNDS)
    assert loss() < 0.9 * before


def test_steps_are_the_plans_and_are_reported(tmp_path: Path) -> None:
    study, seen = private_study(), []
    network = private_network(study)
    trainer = private_trainer(study, network)
    pool = private_pool(tmp_path, study)
    assert trainer.train(pool, **ROUNDS, report=lambda done, steps: seen.append((done, steps))) == 3
    assert seen == [(1, 3), (2, 3), (3, 3)]
    before = trained(network)
    with pytest.raises(ValueError, match="reaches past"):
        trainer.train(pool, global_step=10, total_steps=12)
    assert torch.equal(before, trained(network))


def test_momentum_is_kept_and_checked(tmp_path: Path) -> None:
    study = private_study(training__momentum=0.9)
    network, pool = private_network(study), private_pool(tmp_path, study)
    trainer = private_trainer(study, network)
    trainer.train(pool, **ROUNDS)
    state = trainer.state_dict()
    again = private_trainer(study, private_network(study))
    again.load_state_dict(state)
    assert all(torch.equal(again.state_dict()[name], state[name]) for name in state)
    with pytest.raises(SemcError) as caught:
        again.load_state_dict({})
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID
    assert private_trainer(private_study(), private_network(study)).state_dict() == {}


def test_a_study_without_privacy_is_refused() -> None:
    study = private_study()
    network = private_network(study)
    open_study = study.model_copy(update={"privacy": type(study.privacy)()})
    with pytest.raises(ValueError, match="patient_dp"):
        private_trainer(open_study, network)
