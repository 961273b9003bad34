"""The description against published counts, against real tensors, and against the split it reports."""

from __future__ import annotations

import io
import json

import pytest
import torch
from rich.console import Console

from semc.config import parse_study
from semc.exit_codes import ExitCode, SemcError
from semc.models import build_model
from semc.parameter_exchange import split_parameters
from semc.wire import pack
from simulation.describe import Description, describe, describe_preset, describe_table


def tiny_study(**overrides: object):
    keys = {key.replace("__", "."): value for key, value in overrides.items()}
    text = "{name: t, data: {classes: [a, b]}, training: {local_steps: 1}, federation: {sites: [x, y]}}"
    return parse_study(text, {"model.backbone": "tiny", "data.image_size": 64, **keys})


def local(description: Description) -> dict[str, tuple[int, int]]:
    return {group.name: (group.tensors, group.bytes) for group in description.stays_local}


@pytest.mark.parametrize(
    ("preset", "image_size", "giga_macs", "samc_giga_macs"),
    [
        ("reference", 224, 14.56, 7.46),
        ("reference", 128, 4.76, 2.44),
        ("reference", 512, 76.1, 38.98),
        ("robust", 224, 14.56, 7.46),
        ("paper", 224, 22.0, 14.9),
    ],
)
def test_published_macs(preset, image_size, giga_macs, samc_giga_macs):
    description = describe_preset(preset, "resnet50", 7, image_size)
    assert description.macs / 1e9 == pytest.approx(giga_macs, rel=0.003)
    parts = {part.name: part for part in description.modules}
    assert parts["samc.multi_context"].macs / 1e9 == pytest.approx(samc_giga_macs, rel=0.004)
    assert sum(part.macs for part in description.modules) == description.macs


def test_facts_of_the_reference():
    description = describe_preset("reference", "resnet50", 7, 224)
    assert description.parameters_without_gate_and_alpha == 126_116_151
    assert description.trainable_parameters == 126_116_151
    assert description.parameters == 126_116_151 + 6_147 + 8_321
    assert sum(part.parameters for part in description.modules) == description.parameters
    assert (description.batch_norm.layers, description.batch_norm.channels) == (95, 120_128)
    assert description.exchange.upload_bytes == 4 * description.parameters
    names = [part.name for part in description.modules]
    assert names[:7] == ["backbone", "experts.0", "experts.1", "experts.2", "aces.0", "aces.1", "aces.2"]
    assert json.loads(description.model_dump_json())["exchange"]["bn"] == "silo"


def test_macs_of_one_layer_by_hand():
    description = describe(tiny_study(model__samc_expansion=2))
    parts = {part.name: part for part in description.modules}
    # 64 px -> 2x2 maps of 128 channels; expansion 2: 256 channels; three experts.
    assert parts["samc.multi_context"].macs == 3 * 4 * (128 * 256 + 256 * (9 + 25) + 256 * 128)


@pytest.mark.parametrize("bn", ["silo", "fedbn", "average"])
@pytest.mark.parametrize("wire_dtype", ["fp32", "bf16"])
def test_exchange_is_what_the_split_sends(bn, wire_dtype):
    study = tiny_study(federation__bn=bn, federation__wire_dtype=wire_dtype)
    description = describe(study)
    split = split_parameters(build_model(study), bn)
    assert description.exchange.tensors == len(split.shared)
    message = pack(split.shared, wire_dtype)
    header = int.from_bytes(message[:8], "little") + 8
    assert description.exchange.upload_bytes == description.exchange.download_bytes == len(message) - header
    groups = local(description)
    batch_norm = [value for name, value in groups.items() if name.startswith("batch-norm")]
    assert sum(tensors for tensors, _ in batch_norm) == len(split.local)
    assert sum(size for _, size in batch_norm) == sum(
        t.numel() * t.element_size() for t in split.local.values()
    )
    assert ("batch-norm gamma and beta" in groups) == (bn == "fedbn")
    assert ("batch-norm running statistics" in groups) == (bn != "average")


def test_what_stays_follows_the_study():
    everything = local(describe(tiny_study(objective__queue_size=512)))
    queue = "memory queue: embeddings, labels, image ids, ages"
    assert everything[queue][1] > 512 * 128 * 4
    assert queue not in local(describe(tiny_study(objective__queue=False)))
    assert queue not in local(describe(tiny_study(objective__name="classification")))
    assert "optimiser momentum" not in local(describe(tiny_study(training__momentum=0.0)))
    slow = local(describe(tiny_study(objective__key_encoder="ema")))
    assert slow["slow key encoder (in memory only)"][0] > 100
    assert "running means of the losses" in local(describe(tiny_study(objective__alpha="prior")))


def test_describing_leaves_no_trace():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = describe(tiny_study()), describe(tiny_study())
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)


def test_pretrained_weights_need_not_be_present():
    study = tiny_study(
        model__backbone="resnet18", model__weights="nowhere.pth", model__weights_sha256="0" * 64
    )
    assert describe(study).parameters == describe(tiny_study(model__backbone="resnet18")).parameters


@pytest.mark.parametrize("wrong", [("robust", "resnet99"), ("best", "resnet18")])
def test_unknown_names_are_refused(wrong):
    with pytest.raises(SemcError) as caught:
        describe_preset(*wrong, 7, 64)
    assert caught.value.code == ExitCode.CONFIG_INVALID


def test_table_shows_modules_traffic_and_what_stays():
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(describe_table(describe(tiny_study())))
    text = console.export_text()
    for word in ("samc.multi_context", "site to coordinator", "optimiser momentum", "memory queue"):
        assert word in text
