"""The app as Flower calls it: what goes in, what comes out, and what never does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from safetensors.torch import load

from client.app import build_app
from client.progress import Progress
from semc.config import parse_study
from semc.models import build_model
from semc.parameter_exchange import shared_schema, shared_shapes, split_parameters
from semc.protocol import (
    ARRAYS,
    CONFIG,
    METRIC_NAMES,
    METRICS,
    SERVER_ROUND,
    SHARED_SCHEMA,
    SHARED_TENSORS,
    SITE,
    STUDY,
    STUDY_DIGEST,
    TENSOR_STYPE,
    TEST_CONFUSION,
    RefusalCode,
)
from semc.wire import pack, unpack
from tests.client.flower_message import context, question
from tests.client.small_study import STUDY_TEXT, write_site

STUDY_CONFIG = parse_study(STUDY_TEXT)
NETWORK = build_model(STUDY_CONFIG)
PAYLOAD = pack(split_parameters(NETWORK, "silo").shared, "fp32")


@pytest.fixture
def site_file(hospital: Path, tmp_path: Path) -> Path:
    """Return a site file of its own, so that nothing is warm from another test."""
    content = yaml.safe_load(hospital.read_text())
    content |= {"data": {"root": str(hospital.parent / "images")}, "state_directory": str(tmp_path / "state")}
    file = tmp_path / "site.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def app_of(file: Path, told: list[Progress] | None = None) -> ClientApp:
    return build_app(lambda _context: file, (told if told is not None else []).append)


def content(round_number: int, payload: bytes | None) -> RecordDict:
    config = {STUDY: STUDY_CONFIG.to_yaml(), STUDY_DIGEST: STUDY_CONFIG.digest(), SERVER_ROUND: round_number}
    records = RecordDict({CONFIG: ConfigRecord(config)})
    if payload is not None:
        array = Array(dtype="uint8", shape=(len(payload),), stype=TENSOR_STYPE, data=payload)
        records[ARRAYS] = ArrayRecord({SHARED_TENSORS: array})
    return records


def ask(app: ClientApp, kind: str, round_number: int, payload: bytes | None = PAYLOAD) -> Message:
    return app(message=question(content(round_number, payload), kind), context=context())


def everything(reply: Message) -> bytes:
    """Return all that a reply would put on the wire."""
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

    return b"".join(thing.deflate() for thing in get_all_nested_objects(reply).values())


def test_a_whole_study_at_one_site(site_file: Path) -> None:
    app = app_of(site_file)
    hello = ask(app, "query", 0, None)
    assert hello.content[CONFIG][SITE] == "north"
    assert hello.content[CONFIG][SHARED_SCHEMA] == shared_schema(NETWORK, "silo")
    reply = ask(app, "train", 1)
    shapes = shared_shapes(NETWORK, "silo")
    data = reply.content[ARRAYS][SHARED_TENSORS].data
    assert unpack(data, shapes, "fp32").keys() == shapes.keys()
    again = ask(app, "train", 1)
    assert again.content[ARRAYS][SHARED_TENSORS].data == data, "a message that comes twice is answered alike"
    second = ask(app, "train", 2, data)
    closing = ask(app, "evaluate", 3, second.content[ARRAYS][SHARED_TENSORS].data)
    assert set(closing.content) == {METRICS}
    assert sum(closing.content[METRICS][TEST_CONFUSION]) > 0


def test_nothing_but_the_listed_leaves(site_file: Path, hospital: Path) -> None:
    """File names, patients, batch-norm statistics and queue rows are searched for in the bytes themselves."""
    app = app_of(site_file)
    first = ask(app, "train", 1)
    reply = ask(app, "train", 2, first.content[ARRAYS][SHARED_TENSORS].data)
    sent = everything(reply)
    assert set(reply.content) == {ARRAYS, METRICS}
    assert set(reply.content[METRICS]) <= METRIC_NAMES
    manifest = (hospital.parent / "images" / "manifest.csv").read_text().splitlines()[1:]
    secrets = {cell for row in manifest for cell in row.split(",")[:3:2]} | {
        "running_mean",
        "running_var",
        "queue",
    }
    secrets |= {site_file.parent.name, "images", "manifest"}
    assert len(secrets) > 20
    assert not [secret for secret in secrets if secret.encode() in sent]
    state = sorted((site_file.parent / "state").glob("*/round-00002/*.safetensors"))[0].read_bytes()
    length = int.from_bytes(state[:8], "little")
    assert b"running_mean" in state[: 8 + length], "the control: this is what would have been found"
    local = {name: tensor for name, tensor in load(state).items() if not name.startswith("optimiser/")}
    searched = [name for name, tensor in local.items() if tensor.numel() >= 16 and bool(tensor.all())]
    assert len(searched) > 20
    for name in searched[::4]:
        assert local[name].numpy().tobytes() not in sent, name


@pytest.mark.parametrize(
    ("spoil", "kind", "code"),
    [
        (lambda records: records[CONFIG].update({STUDY_DIGEST: "0" * 64}), "train", RefusalCode.STUDY),
        (lambda records: records[CONFIG].update({SERVER_ROUND: 9}), "train", RefusalCode.INSTRUCTION),
        (lambda records: records.pop(ARRAYS), "train", RefusalCode.INSTRUCTION),
        (
            lambda records: records[ARRAYS][SHARED_TENSORS].__dict__.update(stype="x"),
            "train",
            RefusalCode.INSTRUCTION,
        ),
        (lambda records: None, "query", RefusalCode.INSTRUCTION),
    ],
)
def test_a_wrong_message_gets_a_code(
    site_file: Path, spoil: Callable[[RecordDict], object], kind: str, code: RefusalCode
) -> None:
    records = content(1, b"\x00" * 64)
    spoil(records)
    told: list[Progress] = []
    reply = app_of(site_file, told)(message=question(records, kind), context=context())
    assert reply.error.reason == code.value
    assert told[-1].phase == "refused"
    assert told[-1].text.startswith(f"{code.value}: error ")


def test_an_unreadable_image_leaves_as_a_code_and_its_row_stays_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write_site(tmp_path / "mueller_1953")
    for image in (file.parent / "images" / "north").iterdir():
        image.write_bytes(b"not an image")
    told: list[Progress] = []
    reply = ask(app_of(file, told), "query", 0, None)
    assert reply.error.reason == RefusalCode.DATA.value
    assert "Row 2" in told[-1].text
    assert "mueller" not in told[-1].text
    assert b"mueller" not in everything(reply)
    assert "Row 2" in caplog.text


def test_a_node_without_a_site_file_says_so_without_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEMC_SITE_FILE", raising=False)
    reply = ask(build_app(), "query", 0, None)
    assert reply.error.reason in set(RefusalCode)


def test_one_app_serves_several_virtual_sites(tmp_path: Path) -> None:
    files = [write_site(tmp_path / name, name) for name in ("north", "south")]

    def site_of(node: Context) -> Path:
        return files[int(node.node_config["partition-id"])]

    app = build_app(site_of)
    names = [
        app(message=question(content(0, None), "query"), context=context(partition)).content[CONFIG][SITE]
        for partition in (0, 1, 0)
    ]
    assert names == ["north", "south", "north"]
