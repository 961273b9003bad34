"""What is handed out is the model and its study, and nothing about who took part."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from client.handed_over import read_shared_weights
from semc.checkpoint import load_state
from semc.config import load_study, parse_study
from semc.exit_codes import ExitCode, SemcError
from semc.models import build_model
from semc.parameter_exchange import shared_shapes, split_parameters
from server.export import export_model
from server.round_checkpoint import RoundCheckpoints, SavedRound
from server.run_folder import RunFolder
from tests.client.small_study import STUDY_TEXT
from tests.semc.reporting.study_result import study_result

STUDY = parse_study(STUDY_TEXT)


def finished_run(folder: Path, rounds: int) -> tuple[RunFolder, dict[str, torch.Tensor]]:
    run = RunFolder(folder)
    folder.mkdir()
    run.study_file.write_text(STUDY.to_yaml())
    network = build_model(STUDY)
    model = split_parameters(network, STUDY.federation.bn).shared
    checkpoints = RoundCheckpoints(run.checkpoints, STUDY, shared_shapes(network, STUDY.federation.bn))
    for number in range(rounds + 1):
        model = {name: tensor + number for name, tensor in model.items()}
        history = {"receipts": [{"site": "st-elsewhere", "state": "late"}]}
        optimizer = {"velocity": torch.zeros(3)}
        checkpoints.save(SavedRound(number, model, optimizer, history, ()), best=min(1, number))
    return run, model


def test_a_site_reads_what_was_exported(tmp_path: Path) -> None:
    run, model = finished_run(tmp_path / "run", rounds=2)
    assert export_model(run, tmp_path / "model") == 2
    study = load_study(tmp_path / "model" / "study.yaml")
    assert study == STUDY
    shapes = shared_shapes(build_model(study), study.federation.bn)
    found = read_shared_weights(tmp_path / "model", study, shapes)
    assert found.round_number == 2
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in model.items())


def test_no_hospital_and_no_optimiser_is_in_it(tmp_path: Path) -> None:
    """Control: the run's own checkpoint holds both."""
    run, _ = finished_run(tmp_path / "run", rounds=1)
    export_model(run, tmp_path / "model")

    def everything(folder: Path) -> str:
        tensors, metadata = load_state(folder)
        return json.dumps([sorted(tensors), metadata])

    for word in ("st-elsewhere", "velocity", "history"):
        assert word in everything(run.checkpoints / "round-0001")
        assert word not in everything(tmp_path / "model")


def test_nothing_is_replaced_and_no_untrained_model_leaves(tmp_path: Path) -> None:
    run, _ = finished_run(tmp_path / "run", rounds=1)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").write_text("mine")
    with pytest.raises(SemcError) as caught:
        export_model(run, tmp_path / "model")
    assert caught.value.code is ExitCode.USAGE
    untrained, _ = finished_run(tmp_path / "untrained", rounds=0)
    with pytest.raises(SemcError, match="untrained") as caught:
        export_model(untrained, tmp_path / "other")
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID
    assert not (tmp_path / "other").exists()


def test_the_best_round_is_kept_and_can_be_handed_out(tmp_path: Path) -> None:
    run, _ = finished_run(tmp_path / "run", rounds=6)
    kept = sorted(path.name for path in run.checkpoints.iterdir())
    assert kept == ["round-0001", "round-0004", "round-0005", "round-0006"]
    with pytest.raises(SemcError):  # nobody has said yet which one is the best
        export_model(run, tmp_path / "none", best=True)
    run.write_result(study_result().model_copy(update={"best_round": 1}))
    assert export_model(run, tmp_path / "model", best=True) == 1
    assert export_model(run, tmp_path / "last") == 6
