"""A private reply holds trained numbers and one hash: no name, no buffer, and the same size whatever the data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from client.outbound import OutboundError, update_content
from client.private_round import PrivateSiteTrainer
from client.round_update import RoundUpdate
from semc.config import parse_study
from semc.models import build_model
from semc.parameter_exchange import split_parameters
from semc.protocol import ARRAYS, CONFIG, METRICS, SHARED_TENSORS
from tests.attacks.audit_row import AuditRow, Control
from tests.attacks.payload import SECRETS, findings, num_bytes, plant_secrets
from tests.client.private_site import PRIVATE_TEXT, private_site
from tests.client.small_study import write_site

Audit = Callable[[AuditRow], None]

STUDY = parse_study(PRIVATE_TEXT)
FIRST = split_parameters(build_model(STUDY), "frozen").shared


def test_nothing_but_trained_numbers_and_the_ledgers_head_leaves(tmp_path: Path, audit: Audit) -> None:
    update, shapes = _round(tmp_path / "one", secrets=True)
    content = update_content(update, STUDY, shapes)
    assert findings(content, shapes) == []
    broken = {
        "batch-norm buffer": _with_tensor(update, "backbone.bn1.running_mean", FIRST),
        "free text in the header": _with_metadata(content),
        "training metric": RecordDict({**content, METRICS: MetricRecord({"num-examples": 18})}),
        "patient's name in a setting": RecordDict(
            {**content, CONFIG: ConfigRecord({**content[CONFIG], "note": SECRETS[0]})}
        ),
        "two bytes behind the tensors": _with_data(content, b"\x00\x12"),
    }
    audit(
        AuditRow(
            "payload of a training reply: findings beside the trained tensors and the ledger's head",
            f"one round, {len(shapes)} tensors, {len(SECRETS)} planted secrets",
            float(len(findings(content, shapes))),
            0.0,
            tuple(Control(name, float(len(findings(bad, shapes))), 1.0) for name, bad in broken.items()),
        )
    )


def test_a_reply_is_as_long_whatever_the_data(tmp_path: Path, audit: Audit) -> None:
    sizes, contents = [], []
    for number, patients in enumerate((6, 6, 14)):
        update, shapes = _round(tmp_path / str(number), patients=patients, secrets=number == 1)
        contents.append(update_content(update, STUDY, shapes))
        sizes.append(num_bytes(contents[-1]))
    named = RecordDict({**contents[0], "note": ConfigRecord({"patients": "mueller" * 2})})
    audit(
        AuditRow(
            "payload size: largest difference between three hospitals (bytes)",
            f"6, 6 and 14 patients, with and without long names, {sizes[0]} bytes",
            float(max(sizes) - min(sizes)),
            0.0,
            (Control("a text that names patients", float(abs(num_bytes(named) - sizes[0])), 1.0),),
        )
    )
    assert len({bytes(content[ARRAYS][SHARED_TENSORS].data) for content in contents}) == 3


def test_the_door_refuses_a_buffer(tmp_path: Path) -> None:
    update, shapes = _round(tmp_path / "one")
    for name in ("backbone.bn1.running_mean", "backbone.conv1.weight"):
        with pytest.raises(OutboundError):
            update_content(
                RoundUpdate({**update.shared, name: FIRST[name]}, {}, update.ledger_head), STUDY, shapes
            )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_the_search_finds_a_secret_wherever_it_lies(tmp_path: Path, encoding: str) -> None:
    update, shapes = _round(tmp_path / "one")
    content = update_content(update, STUDY, shapes)
    for lead in range(4):
        hidden = _with_data(content, bytes(lead) + SECRETS[1].encode(encoding))
        assert "secret number 1" in findings(hidden, shapes)


def _round(
    folder: Path, *, patients: int = 6, secrets: bool = False
) -> tuple[RoundUpdate, dict[str, tuple[int, ...]]]:
    """Train the first round at a phantom hospital and return its update, and the shapes that may leave."""
    site = private_site(folder)
    write_site(folder, patients=patients)  # the same hospital with other data; policy and ledger stay
    if secrets:
        plant_secrets(site.data.root)
    trainer = PrivateSiteTrainer(site, STUDY)
    return trainer.run_round(1, FIRST), trainer.update_shapes


def _with_data(content: RecordDict, behind: bytes) -> RecordDict:
    return _with_bytes(content, content[ARRAYS][SHARED_TENSORS].data + behind)


def _with_bytes(content: RecordDict, data: bytes) -> RecordDict:
    array = Array(dtype="uint8", shape=(len(data),), stype="safetensors", data=data)
    return RecordDict({**content, ARRAYS: ArrayRecord({SHARED_TENSORS: array})})


def _with_metadata(content: RecordDict) -> RecordDict:
    data = content[ARRAYS][SHARED_TENSORS].data
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    text = json.dumps({"__metadata__": {"comment": SECRETS[0]}, **header}).encode()
    return _with_bytes(content, len(text).to_bytes(8, "little") + text + data[end:])


def _with_tensor(update: RoundUpdate, name: str, tensors: dict[str, torch.Tensor]) -> RecordDict:
    """Return the reply that would leave if the door let a further tensor through."""
    shared = {**update.shared, name: tensors[name]}
    shapes = {key: tuple(tensor.shape) for key, tensor in shared.items()}
    return update_content(RoundUpdate(shared, {}, update.ledger_head), STUDY, shapes)
