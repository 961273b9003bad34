"""A new hospital takes over a finished model: what it writes, what it tells, what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from client.adopt import adopt, load_adopted
from client.adoption import DRIFT_WARNING, KIND
from client.unlabelled import unlabelled_rows
from semc.checkpoint import MODEL_PREFIX, load_state, save_state
from semc.config import StudyConfig, load_site, parse_study
from semc.datasets import SiteImages, build_site_data, evaluation_batches
from semc.exit_codes import ExitCode, SemcError
from semc.models import build_model
from semc.parameter_exchange import split_parameters
from semc.training import blend_statistics, evaluate, statistics_of
from tests.client.private_site import PRIVATE_TEXT
from tests.client.small_study import STUDY_TEXT, write_site

CPU = torch.device("cpu")
CLIENT = Path(sys.executable).parent / "semc-client"


def study_of(bn: str = "silo", **changes: Any) -> StudyConfig:
    return parse_study(
        STUDY_TEXT, {"federation.bn": bn, **{k.replace("__", "."): v for k, v in changes.items()}}
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the site file of a hospital that no study names, with 85 training images."""
    return write_site(tmp_path_factory.mktemp("new"), "west", patients=34)


def hand_over(folder: Path, study: StudyConfig, model: dict[str, Tensor] | None = None) -> tuple[Path, str]:
    """Write a round's checkpoint as the coordinator does, and the study beside it."""
    if model is None:
        model = split_parameters(build_model(study), study.federation.bn).shared
    tensors = {MODEL_PREFIX + name: tensor for name, tensor in model.items()}
    tensors["optimizer/velocity"] = torch.zeros(2)
    metadata = {"round": 2, "digest": study.digest(), "history": {"receipts": []}}
    save_state(folder / "round-0002", tensors, metadata)
    (folder / "study.yaml").write_text(study.to_yaml(), encoding="utf-8")
    return folder / "round-0002", str(folder / "study.yaml")


def refused(code: ExitCode, *arguments: Any, **named: Any) -> SemcError:
    with pytest.raises(SemcError) as caught:
        adopt(*arguments, **named)
    assert caught.value.code is code, caught.value
    return caught.value


def test_under_silo_only_the_statistics_are_the_sites_own(site: Path, tmp_path: Path) -> None:
    study = study_of()
    weights, study_file = hand_over(tmp_path, study)
    found = adopt(site, study_file, weights, out=tmp_path / "out")
    tensors, metadata = load_state(tmp_path / "out")
    handed = load_state(weights)[0]
    shared = split_parameters(build_model(study), "silo").shared
    assert shared.keys() < tensors.keys()
    assert all(torch.equal(tensors[name], handed[MODEL_PREFIX + name]) for name in shared)
    initial = build_model(study).state_dict()
    moved = [name for name in tensors if not torch.equal(tensors[name], initial[name])]
    assert moved
    assert all(name.endswith(("running_mean", "running_var")) for name in moved)
    assert metadata["kind"] == KIND == "adapted statistics"
    assert (metadata["study"], metadata["site"], metadata["round"]) == (study.digest(), "west", 2)
    assert found.report.reference == "halves"
    assert found.report.prior_count == 0
    assert found.report.num_images == len(build_site_data(load_site(site).data, study.data, 2).train) >= 64
    assert sum(found.predicted_before) == sum(found.predicted_after) == found.report.num_images


def test_under_average_the_federations_statistics_count_for_32_images(site: Path, tmp_path: Path) -> None:
    average, silo = study_of("average"), study_of()
    adopt(site, hand_over(tmp_path / "a", average)[1], tmp_path / "a/round-0002", out=tmp_path / "blended")
    adopt(site, hand_over(tmp_path / "s", silo)[1], tmp_path / "s/round-0002", out=tmp_path / "own")
    blended = statistics_of(load_adopted(tmp_path / "blended", average))
    own, prior = statistics_of(load_adopted(tmp_path / "own", silo)), statistics_of(build_model(average))
    metadata = load_state(tmp_path / "blended")[1]
    assert (metadata["prior_count"], metadata["drift"]["reference"]) == (32.0, "federation")
    for name in own:
        expected = blend_statistics(prior[name], own[name], 32, metadata["images"])
        torch.testing.assert_close(blended[name].mean_C, expected.mean_C)
        torch.testing.assert_close(blended[name].variance_C, expected.variance_C)


def test_it_is_deterministic_and_may_be_repeated_in_the_state_directory(site: Path, tmp_path: Path) -> None:
    weights, study_file = hand_over(tmp_path, study_of())
    first = adopt(site, study_file, weights)
    assert first.folder == load_site(site).state_directory / study_of().digest()[:16] / "adopted"
    before = load_state(first.folder)
    torch.manual_seed(77)
    second = adopt(site, study_file, weights / "state.json")
    after = load_state(first.folder)
    assert first == second
    assert before[1] == after[1]
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])


def test_the_saved_model_evaluates_at_once_and_scores_as_reported(site: Path, tmp_path: Path) -> None:
    study = study_of()
    weights, study_file = hand_over(tmp_path, study)
    found = adopt(site, study_file, weights, out=tmp_path / "out")
    network = load_adopted(tmp_path / "out", study)
    config = load_site(site)
    test = build_site_data(config.data, study.data, 2).test
    batches = evaluation_batches(test, SiteImages(study.data, config.data))
    confusion = evaluate(network, batches, 3, CPU).confusion
    assert found.test_after is not None
    assert (found.test_after.num_images, found.test_after.macro_f1) == (len(test), confusion.macro_f1)
    with pytest.raises(SemcError) as caught:
        load_adopted(tmp_path / "out", study_of(seed=4))
    assert caught.value.code is ExitCode.STUDY_MISMATCH
    with pytest.raises(SemcError) as caught:
        load_adopted(weights, study)
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID


def pictures(site: Path, folder: Path, count: int, patients: int) -> Path:
    """Copy images without their manifest into one sub-folder per patient."""
    found = sorted((site.parent / "images").rglob("*.png"))[:count]
    assert len(found) == count
    for number, path in enumerate(found):
        target = folder / f"exam_{number % patients}" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return folder


def test_too_few_unlabelled_images_are_refused_unless_the_federation_has_statistics(
    site: Path, tmp_path: Path
) -> None:
    weights, study_file = hand_over(tmp_path / "silo", study_of())
    few = pictures(site, tmp_path / "few", 63, patients=9)
    error = refused(ExitCode.IMAGES_TOO_FEW, site, study_file, weights, images=few, out=tmp_path / "out")
    assert "63 images" in error.problem
    assert "at least 64" in error.problem
    assert not (tmp_path / "out").exists()
    refused(ExitCode.IMAGES_TOO_FEW, site, study_file, weights, images=few, minimum=3, out=tmp_path / "out")
    enough = pictures(site, tmp_path / "enough", 64, patients=9)
    found = adopt(site, study_file, weights, images=enough, out=tmp_path / "out")
    assert (found.report.num_images, found.num_patients, found.test_after) == (64, 9, None)
    refused(
        ExitCode.IMAGES_TOO_FEW, site, study_file, weights, images=enough, minimum=65, out=tmp_path / "out"
    )
    weights, study_file = hand_over(tmp_path / "average", study_of("average"))
    blended = adopt(site, study_file, weights, images=few, out=tmp_path / "other")
    assert blended.report.num_images == 63


def test_a_folder_is_listed_by_name_with_a_patient_per_sub_folder(site: Path, tmp_path: Path) -> None:
    folder = pictures(site, tmp_path / "images", 6, patients=2)
    loose = folder / "exam_0" / sorted(p.name for p in (folder / "exam_0").iterdir())[0]
    shutil.copyfile(loose, folder / "b.PNG")
    shutil.copyfile(loose, folder / "c.png")
    (folder / "notes.txt").write_text("no image")
    (folder / "away.png").symlink_to(site)
    config, study = load_site(site), study_of()
    rows = unlabelled_rows(folder, study.data, config)
    assert [row.index for row in rows] == list(range(1, 9))
    assert [row.group for row in rows] == ["row 1", "row 2", *["exam_0"] * 3, *["exam_1"] * 3]
    (folder / "broken.png").write_bytes(b"not an image")
    with pytest.raises(SemcError) as caught:
        unlabelled_rows(folder, study.data, config)
    assert caught.value.code is ExitCode.DATA_UNREADABLE
    assert "Row 2" in caught.value.problem
    assert "broken" not in caught.value.line()
    refused(ExitCode.DATA_NOT_FOUND, site, *reversed(hand_over(tmp_path, study)), images=tmp_path / "absent")


def test_the_warnings(site: Path, tmp_path: Path) -> None:
    weights, study_file = hand_over(tmp_path, study_of("average"))
    exam = pictures(site, tmp_path / "exam", 64, patients=1)
    clean = adopt(site, study_file, weights, images=exam, out=tmp_path / "out")
    assert "not read" not in " ".join(clean.warnings)
    for name in ("one.dcm", "clip.mp4"):
        (exam / name).write_bytes(b"not read")
    found = adopt(site, study_file, weights, images=exam, out=tmp_path / "out")
    told = " ".join(found.warnings)
    assert "2 files of the folder were not read" in told
    assert found.report == clean.report
    assert "1 patients" in told
    assert found.report.mean_drift is not None
    assert found.report.mean_drift > DRIFT_WARNING, "untrained statistics are not this site's"
    assert "from the federation's" in told
    assert found.content()["warnings"] == list(found.warnings)


def test_foreign_weights_are_refused_with_the_difference(site: Path, tmp_path: Path) -> None:
    study = study_of()
    _, study_file = hand_over(tmp_path / "own", study)
    wider, _ = hand_over(tmp_path / "wider", study_of(model__embedding_dim=16))
    error = refused(ExitCode.STUDY_MISMATCH, site, study_file, wider, out=tmp_path / "out")
    assert "projection" in error.problem
    assert "[16" in error.problem
    assert "instead of [8" in error.problem
    more, _ = hand_over(tmp_path / "more", study_of(model__experts=3))
    assert "unknown to it" in refused(ExitCode.STUDY_MISMATCH, site, study_file, more).problem
    average, _ = hand_over(tmp_path / "average", study_of("average"))
    assert "running_" in refused(ExitCode.STUDY_MISMATCH, site, study_file, average).problem
    other, _ = hand_over(tmp_path / "other", study_of(seed=9))
    error = refused(ExitCode.STUDY_MISMATCH, site, study_file, other)
    assert study.digest()[:12] in error.problem
    assert study_of(seed=9).digest()[:12] in error.problem
    assert not (tmp_path / "out").exists()


def test_damaged_and_poisoned_weights_are_refused(site: Path, tmp_path: Path) -> None:
    study = study_of()
    weights, study_file = hand_over(tmp_path, study)
    refused(ExitCode.CHECKPOINT_INVALID, site, study_file, tmp_path / "absent")
    model = split_parameters(build_model(study), "silo").shared
    model[next(iter(model))].view(-1)[0] = torch.nan
    poisoned, _ = hand_over(tmp_path / "poisoned", study, model)
    assert "finite" in refused(ExitCode.CHECKPOINT_INVALID, site, study_file, poisoned).problem
    huge = {name: torch.full_like(tensor, 1e30) for name, tensor in model.items()}
    error = refused(
        ExitCode.CHECKPOINT_INVALID, site, study_file, hand_over(tmp_path / "huge", study, huge)[0]
    )
    assert "activations" in error.problem
    (file,) = weights.glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    refused(ExitCode.CHECKPOINT_INVALID, site, study_file, weights)
    save_state(tmp_path / "stranger", {"x": torch.zeros(1)}, {"anything": 1})
    refused(ExitCode.CHECKPOINT_INVALID, site, study_file, tmp_path / "stranger")


def test_fedbn_and_unapproved_studies_are_refused(site: Path, tmp_path: Path) -> None:
    weights, study_file = hand_over(tmp_path / "fedbn", study_of("fedbn"))
    error = refused(ExitCode.STUDY_MISMATCH, site, study_file, weights)
    assert "gamma and beta" in error.problem
    weights, study_file = hand_over(tmp_path / "silo", study_of())
    content = yaml.safe_load(site.read_text())
    strict = site.parent / "strict.yaml"
    strict.write_text(yaml.safe_dump({**content, "expected_model": {"image_size": 64}}))
    assert "approved 64" in refused(ExitCode.STUDY_MISMATCH, strict, study_file, weights).problem
    strict.write_text(yaml.safe_dump({**content, "allowed_studies": ["123456789abc"]}))
    assert "allowed studies" in refused(ExitCode.STUDY_MISMATCH, strict, study_file, weights).problem


def test_a_private_studys_statistics_are_a_prior_as_those_of_average_are(site: Path, tmp_path: Path) -> None:
    study = parse_study(PRIVATE_TEXT)
    few = pictures(site, tmp_path / "few", 63, patients=9)
    weights, study_file = hand_over(tmp_path, study)
    found = adopt(site, study_file, weights, images=few, out=tmp_path / "out")
    assert (found.report.reference, found.report.prior_count, found.report.num_images) == ("prior", 32.0, 63)
    adopted, prior = statistics_of(load_adopted(tmp_path / "out", study)), statistics_of(build_model(study))
    name = next(iter(prior))
    own = (adopted[name].mean_C * 95 - prior[name].mean_C * 32) / 63
    assert not torch.allclose(adopted[name].mean_C, prior[name].mean_C)
    assert not torch.allclose(adopted[name].mean_C, own)


@pytest.mark.parametrize("text", [STUDY_TEXT, PRIVATE_TEXT])
def test_a_network_without_batch_norm_has_nothing_to_adapt(text: str, site: Path, tmp_path: Path) -> None:
    weights, study_file = hand_over(tmp_path, parse_study(text, {"model.norm": "group"}))
    error = refused(ExitCode.STUDY_MISMATCH, site, study_file, weights, out=tmp_path / "out")
    assert "no statistics to adapt" in error.problem
    assert not (tmp_path / "out").exists()


def test_nothing_else_is_overwritten(site: Path, tmp_path: Path) -> None:
    weights, study_file = hand_over(tmp_path, study_of())
    before = load_state(weights)
    refused(ExitCode.USAGE, site, study_file, weights, out=weights)
    assert load_state(weights)[1] == before[1]
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "tensors-of-another.safetensors").write_bytes(b"x")
    refused(ExitCode.USAGE, site, study_file, weights, out=tmp_path / "models")


def test_the_command_prints_a_table_and_json(site: Path, tmp_path: Path) -> None:
    weights, study_file = hand_over(tmp_path, study_of())
    command = ["--site", str(site), "--weights", str(weights), "--study", study_file, "--out"]
    done = subprocess.run(
        [CLIENT, "adopt", *command, tmp_path / "one", "--format", "json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    content = json.loads(done.stdout)
    assert content["statistics"] == "adapted statistics"
    assert content["drift"]["reference"] == "halves of this site's patients"
    assert content["drift"]["mean"] == pytest.approx(
        sum(content["drift"]["layers"].values()) / len(content["drift"]["layers"])
    )
    assert set(content["predicted_after"]) == {"head", "abdomen", "femur"}
    found = adopt(site, study_file, weights, out=tmp_path / "two")
    assert json.loads(found.to_json()) == {**content, "folder": str(tmp_path / "two")}
    table = subprocess.run(
        [CLIENT, "adopt", *command, tmp_path / "three"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    for words in ("adapted statistics of", "head", "standard deviations", "macro F1", "saved in"):
        assert words in table
    wrong = subprocess.run(
        [CLIENT, "adopt", *command, weights], capture_output=True, text=True, check=False, timeout=120
    )
    assert wrong.returncode == ExitCode.USAGE
    assert wrong.stderr.startswith("error 2 USAGE: ")
