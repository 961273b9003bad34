"""The seam: another aggregation runs whole studies without a line of the round loop knowing it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from server.rounds import run_study
from server.run_folder import RunFolder
from tests.server.federation import FAST, ScriptedGrid, ScriptedSite, registry_of, tiny_model, tiny_study
from tests.server.test_rounds import final_model

SIZES = {"north": 10, "south": 20, "west": 70}


class Median:
    """The median of each number over the sites: no weight, no optimiser."""

    def next_model(self, current: Mapping[str, Tensor], payloads: Mapping[str, Path]) -> dict[str, Tensor]:
        replies = [load_file(path) for path in payloads.values()]
        return {
            name: torch.stack([reply[name] for reply in replies]).median(dim=0).values for name in current
        }

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        assert not state


def _final_bias(folder: Path) -> Tensor:
    sites = [ScriptedSite(name, step=step) for name, step in zip(SIZES, (1.0, 2.0, 300.0), strict=True)]
    run_study(
        ScriptedGrid(sites),
        tiny_study(),
        registry_of(SIZES),
        RunFolder(folder),
        model=tiny_model(),
        pace=FAST,
    )
    return final_model(folder)["fc.bias"]


def test_a_median_takes_the_place_of_the_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = tiny_model().tensors["fc.bias"]
    torch.testing.assert_close(_final_bias(tmp_path), start + 2 * (10 * 1 + 20 * 2 + 70 * 300) / 100)
    monkeypatch.setattr("server.study_state.build_aggregator", lambda *_, **__: Median())
    other = tmp_path / "other"
    other.mkdir()
    torch.testing.assert_close(_final_bias(other), start + 2 * 2.0)
