"""Pretrained weights: from the cache or a hashed file only; refusals are one line without a file name."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save
from torch import Tensor

from semc.exit_codes import ExitCode, SemcError
from semc.models import SEMCNet, build_model
from semc.models.experts import EXPERT_NOISE
from semc.models.weights import MAX_WEIGHTS_BYTES, TORCHVISION_FILES, WEIGHTS_DIRECTORY
from tests.semc.models.studies import make_study

Write = Callable[[bytes], dict[str, str]]


@pytest.fixture(autouse=True)
def weights_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let build_model find files in the test's folder, as a coordinator's environment does."""
    monkeypatch.setenv(WEIGHTS_DIRECTORY, str(tmp_path))


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return torchvision.models.resnet18(weights=None).state_dict()


def torch_bytes(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def by_path(path: Path, content: bytes) -> dict[str, str]:
    path.write_bytes(content)
    return {"model__weights": path.name, "model__weights_sha256": hashlib.sha256(content).hexdigest()}


def refused(**overrides: object) -> str:
    with pytest.raises(SemcError) as caught:
        build_model(make_study(model__backbone="resnet18", model__samc_expansion=1, **overrides))
    assert caught.value.code == ExitCode.WEIGHTS_INVALID
    line = caught.value.line()
    assert "\n" not in line
    assert "patient7" not in line
    assert ".pt" not in line
    return line


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_a_file_initialises_backbone_and_experts(tmp_path, state, kind):
    content = torch_bytes(state) if kind == "torch" else save(dict(state))
    weights = by_path(tmp_path / ("w.pth" if kind == "torch" else "w.safetensors"), content)
    network = build_model(make_study(model__backbone="resnet18", model__samc_expansion=1, **weights))
    assert isinstance(network, SEMCNet)
    for key, value in network.backbone.state_dict().items():
        assert torch.equal(value, state[key]), key
    noises = [expert[0].conv1.weight.detach() - state["layer4.0.conv1.weight"] for expert in network.experts]
    for noise in noises:
        assert float(noise.std()) == pytest.approx(EXPERT_NOISE, rel=0.01)
    assert not torch.equal(noises[0], noises[1])
    assert torch.equal(network.experts[2][1].bn2.weight, state["layer4.1.bn2.weight"])


def test_experts_can_stay_random_beside_a_pretrained_backbone(tmp_path, state):
    weights = by_path(tmp_path / "w.pth", torch_bytes(state))
    study = make_study(
        model__backbone="resnet18", model__samc_expansion=1, model__expert_init="random", **weights
    )
    network = build_model(study)
    assert torch.equal(network.backbone.conv1.weight, state["conv1.weight"])
    distance = (network.experts[0][0].conv1.weight.detach() - state["layer4.0.conv1.weight"]).std()
    assert float(distance) > 10 * EXPERT_NOISE


def test_the_plain_baseline_loads_without_noise(tmp_path, state):
    weights = by_path(tmp_path / "w.pth", torch_bytes(state))
    network = build_model(make_study(objective__name="classification", model__backbone="resnet18", **weights))
    assert torch.equal(network.layer4[0].conv1.weight, state["layer4.0.conv1.weight"])


def test_old_files_without_batch_counters_load(tmp_path, state):
    old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    weights = by_path(tmp_path / "w.pth", torch_bytes(old))
    network = build_model(make_study(model__backbone="resnet18", model__samc_expansion=1, **weights))
    assert int(network.backbone.bn1.num_batches_tracked) == 0


def test_refused_files(tmp_path, state):
    path = tmp_path / "patient7.pth"
    assert "cannot be read" in refused(model__weights=path.name, model__weights_sha256="0" * 64)

    weights = by_path(path, torch_bytes(state))
    assert "SHA-256" in refused(**{**weights, "model__weights_sha256": "0" * 64})

    assert "not a state dict file" in refused(**by_path(path, b"not weights"))
    assert "not a state dict file" in refused(**by_path(tmp_path / "patient7.safetensors", b"\xff" * 64))
    assert "not a plain state dict" in refused(**by_path(path, torch_bytes({"state_dict": dict(state)})))
    assert "not a plain state dict" in refused(**by_path(path, torch_bytes([1, 2])))

    missing = {key: value for key, value in state.items() if key != "layer2.0.conv1.weight"}
    assert "lack the tensor 'layer2.0.conv1.weight'" in refused(**by_path(path, torch_bytes(missing)))
    wrong = {**state, "conv1.weight": torch.zeros(64, 1, 7, 7)}
    assert "[64, 1, 7, 7]" in refused(**by_path(path, torch_bytes(wrong)))
    broken = {**state, "conv1.weight": torch.full((64, 3, 7, 7), float("nan"))}
    assert "not finite" in refused(**by_path(path, torch_bytes(broken)))
    without_stage_4 = {key: value for key, value in state.items() if not key.startswith("layer4")}
    assert "layer4.0" in refused(**by_path(path, torch_bytes(without_stage_4)))


def test_only_a_regular_file_of_bounded_size_is_read(tmp_path):
    named = {"model__weights": "patient7.pth", "model__weights_sha256": "0" * 64}
    path = tmp_path / "patient7.pth"
    path.mkdir()
    refused(**named)
    path.rmdir()
    os.mkfifo(path)
    assert "not a regular file" in refused(**named)
    path.unlink()
    with path.open("wb") as sparse:
        sparse.truncate(MAX_WEIGHTS_BYTES + 1)
    assert "larger than 2 GiB" in refused(**named)


def test_the_sites_own_folder_comes_before_the_environments(tmp_path, state, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    weights = by_path(own / "w.pth", torch_bytes(state))
    study = make_study(model__backbone="resnet18", model__samc_expansion=1, **weights)
    assert torch.equal(build_model(study, own).backbone.conv1.weight, state["conv1.weight"])
    assert "cannot be read" in refused(**weights)
    monkeypatch.delenv(WEIGHTS_DIRECTORY)
    assert "weights_directory" in refused(**weights)


def test_a_pickle_that_runs_code_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    content = torch_bytes({"conv1.weight": Payload()})
    assert "not a state dict file" in refused(**by_path(tmp_path / "patient7.pth", content))
    assert "not a state dict file" in refused(**by_path(tmp_path / "patient7.pt", pickle.dumps(Payload())))
    assert not (tmp_path / "executed").exists()
    # The control: the same file does run under the unrestricted loader.
    torch.load(io.BytesIO(content), weights_only=False)
    assert (tmp_path / "executed").exists()


def test_torchvision_weights_come_from_the_cache_only(tmp_path, state, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))

    def no_network(*args: object, **kwargs: object) -> None:
        raise AssertionError("a download was tried")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    line = refused(model__weights="torchvision")
    assert "cannot be read" in line
    assert "hub cache" in line

    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    content = torch_bytes(state)
    (checkpoints / TORCHVISION_FILES["resnet18"]).write_bytes(content)
    assert "SHA-256" in refused(model__weights="torchvision")

    name = f"resnet18-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    monkeypatch.setitem(TORCHVISION_FILES, "resnet18", name)
    (checkpoints / name).write_bytes(content)
    network = build_model(
        make_study(model__backbone="resnet18", model__samc_expansion=1, model__weights="torchvision")
    )
    assert torch.equal(network.backbone.conv1.weight, state["conv1.weight"])


def test_torchvision_file_names_are_torchvisions():
    for name, weights in (
        ("resnet18", torchvision.models.ResNet18_Weights.IMAGENET1K_V1),
        ("resnet34", torchvision.models.ResNet34_Weights.IMAGENET1K_V1),
        ("resnet50", torchvision.models.ResNet50_Weights.IMAGENET1K_V1),
    ):
        assert TORCHVISION_FILES[name] == Path(weights.url).name


def test_building_a_network_does_not_import_torchvision():
    probe = "import sys, semc.models; print('torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
