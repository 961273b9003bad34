"""The by-name rule misses norms that the by-type rule finds; where nothing is kept, the control is plain FedAvg."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from semc.config import StudyConfig, parse_study
from semc.models import build_model
from semc.parameter_exchange import batch_norm_names
from semc.reporting.groups import is_yardstick
from simulation.arm_run import received_weights
from simulation.arms import parse_arm
from simulation.bn_control import by_name, by_type, train_control
from simulation.run import prepare, run_simulation


@pytest.mark.parametrize("backbone", ["small", "resnet18", "resnet50"])
def test_by_type_misses_no_norm_and_by_name_misses_the_shortcuts_and_semcs_own(
    study: StudyConfig, backbone: str
) -> None:
    network = build_model(parse_study(study.to_yaml(), {"model.backbone": backbone}))
    norms = batch_norm_names(network, "average")
    names = set(network.state_dict())
    assert {name for name in names if by_type(network)(name)} == norms
    found = {name for name in names if by_name(network)(name)} & norms
    missed = norms - found
    assert found
    assert any("downsample" in name and "running_mean" in name for name in missed)


def test_by_name_follows_the_name_and_by_type_does_not() -> None:
    plain = nn.Sequential()
    plain.add_module("bn", nn.BatchNorm2d(2))
    renamed = nn.Sequential()
    renamed.add_module("norm", nn.BatchNorm2d(2))
    assert [by_type(network)(f"{name}.weight") for network, name in ((plain, "bn"), (renamed, "norm"))] == [
        True,
        True,
    ]
    assert [by_name(network)(f"{name}.weight") for network, name in ((plain, "bn"), (renamed, "norm"))] == [
        True,
        False,
    ]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rounds", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_a_rule_that_keeps_nothing_is_federated_averaging(
    hospitals: Path, study: StudyConfig, tmp_path: Path, rounds: int
) -> None:
    federation = study.federation.model_copy(update={"rounds": rounds})
    study = parse_arm("fedavg").study(study.model_copy(update={"federation": federation}), 0)
    run = prepare(study, hospitals, tmp_path / "run")
    run_simulation(run)
    files = {name: run.site_file(name) for name in study.federation.sites}
    found = train_control(study, files, tmp_path / "states", lambda _: lambda _: False)
    trainer, weights = found["north"]
    deployed = received_weights(run, trainer)
    assert weights.keys() == deployed.keys()
    for name, tensor in deployed.items():
        torch.testing.assert_close(weights[name].float(), tensor, rtol=0, atol=1e-6)
    kept = train_control(study, files, tmp_path / "kept", by_type)
    one, other = (weights for _, weights in list(kept.values())[:2])
    norms = by_type(build_model(study))
    for name in one:
        assert torch.equal(one[name], other[name]) != norms(name) or "num_batches" in name


def test_a_control_is_never_the_arm_a_report_judges() -> None:
    assert parse_arm("control-bn-by-name").kind == "control"
    assert is_yardstick("control-bn-by-name+ce")
    assert not is_yardstick("fedbn")
