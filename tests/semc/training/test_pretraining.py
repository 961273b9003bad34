"""A trunk from public images: the same every time, kept, without classifiers, and never anybody's patients."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from semc.checkpoint import STATE_FILE
from semc.config import StudyConfig, parse_study
from semc.exit_codes import ExitCode, SemcError
from semc.models import build_model
from semc.training.pretraining import PUBLIC_DATA, initial_network, pretrained_trunk, public_study
from tests.semc.datasets.tiny_site import patients, write_image, write_site

TEXT = """
name: small
seed: 3
data: {classes: [head, abdomen, femur], image_size: 32}
model: {backbone: tiny, experts: 2, samc_expansion: 1, embedding_dim: 8}
training: {local_steps: 2}
federation: {sites: [north], rounds: 2}
privacy: {mode: patient_dp, noise_multiplier: 4.0}
pretraining: {centres: 2, patients: 4, frames_per_patient: 2, steps: 3, batch_size: 4}
"""
STUDY = parse_study(TEXT)


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_only_the_trunk_changes_and_the_same_study_gives_the_same_weights() -> None:
    fresh, one, two = build_model(STUDY), initial_network(STUDY), initial_network(STUDY)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name])
        if name.startswith("classifiers."):
            assert torch.equal(tensor, fresh.state_dict()[name])
    assert not torch.equal(
        one.state_dict()["backbone.conv1.weight"], fresh.state_dict()["backbone.conv1.weight"]
    )
    statistics = one.state_dict()["backbone.bn1.running_mean"]
    assert not torch.equal(
        statistics, torch.zeros_like(statistics)
    )  # the public statistics a frozen norm needs


def test_another_seed_gives_another_trunk() -> None:
    assert not same(pretrained_trunk(STUDY), pretrained_trunk(parse_study(TEXT, {"seed": 4})))


@pytest.mark.parametrize("trainable", ["heads+projection", "adapters"])
def test_prototypes_and_adapters_keep_their_start(trainable: str) -> None:
    study = parse_study(TEXT, {"privacy.trainable": trainable})
    fresh, network = build_model(study).state_dict(), initial_network(study).state_dict()
    kept = {name for name in fresh if "prototype" in name or "adapter" in name}
    assert kept
    assert all(torch.equal(network[name], fresh[name]) for name in kept)
    assert not torch.equal(network["projection.embed.weight"], fresh["projection.embed.weight"])


def test_a_kept_trunk_is_found_again_and_one_of_other_settings_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pretrained_trunk(STUDY, keep=tmp_path)
    assert (tmp_path / STATE_FILE).is_file()
    with monkeypatch.context() as patch:
        patch.setattr("semc.training.pretraining._train", lambda *_: pytest.fail("trained again"))
        assert same(pretrained_trunk(STUDY, keep=tmp_path), first)
    other: StudyConfig = parse_study(TEXT, {"pretraining.steps": 2})
    assert not same(pretrained_trunk(other, keep=tmp_path), first)


def test_public_images_of_other_classes_are_taken_from_the_operators_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = parse_study(TEXT, {"pretraining.source": "atlas"})
    with pytest.raises(SemcError) as caught:
        pretrained_trunk(study)
    assert caught.value.code is ExitCode.DATA_NOT_FOUND
    monkeypatch.setenv(PUBLIC_DATA, str(tmp_path))
    rows = [(file, f"plane {label}", group) for file, label, group in patients(6)]
    write_site(tmp_path / "atlas", rows)
    before = hashlib.sha256((tmp_path / "atlas" / "manifest.csv").read_bytes()).hexdigest()
    trunk = pretrained_trunk(study)
    assert not any(name.startswith("classifiers.") for name in trunk)
    assert hashlib.sha256((tmp_path / "atlas" / "manifest.csv").read_bytes()).hexdigest() == before


def test_a_kept_trunk_of_other_public_images_or_software_is_not_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = parse_study(TEXT, {"pretraining.source": "atlas"})
    monkeypatch.setenv(PUBLIC_DATA, str(tmp_path))
    write_site(tmp_path / "atlas", patients(6))
    pretrained_trunk(study, keep=tmp_path / "kept")
    trained: list[object] = []

    def train(study: StudyConfig, source: object, report: object) -> dict[str, torch.Tensor]:
        trained.append(source)
        return {"backbone": torch.zeros(1)}

    monkeypatch.setattr("semc.training.pretraining._train", train)
    pretrained_trunk(study, keep=tmp_path / "kept")
    assert not trained  # the control: nothing changed
    write_image(tmp_path / "atlas" / patients(6)[0][0], 99)
    for number in (1, 1):
        pretrained_trunk(study, keep=tmp_path / "kept")
        assert len(trained) == number
    write_site(tmp_path / "atlas", patients(6)[:-1], images=False)
    pretrained_trunk(study, keep=tmp_path / "kept")
    assert len(trained) == 2
    monkeypatch.setattr("semc.training.pretraining.__version__", "0.0.0")
    pretrained_trunk(study, keep=tmp_path / "kept")
    assert len(trained) == 3


def test_the_public_study_has_the_papers_objective_and_no_privacy() -> None:
    public = public_study(STUDY, ("a", "b"))
    assert public.privacy.mode == "none"
    assert public.objective.name == "semc"
    assert public.federation.bn == "average"
    assert public.model.model_copy(update={"adapter_width": 0}) == STUDY.model.model_copy(
        update={"adapter_width": 0}
    )
    assert public.seed != STUDY.seed
