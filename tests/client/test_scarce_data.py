"""A site without images, or with one class, declines with a code in every message, and serves whoever it can after."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from client.app import build_app
from client.progress import Progress
from semc.config import StudyConfig, parse_study
from semc.exit_codes import ExitCode
from semc.models import build_model
from semc.parameter_exchange import split_parameters
from semc.protocol import (
    ARRAYS,
    CONFIG,
    SERVER_ROUND,
    SHARED_TENSORS,
    STUDY,
    STUDY_DIGEST,
    TENSOR_STYPE,
    RefusalCode,
)
from semc.wire import pack
from tests.client.flower_message import context, question
from tests.client.small_study import STUDY_TEXT, write_site

STUDY_CONFIG = parse_study(STUDY_TEXT)
SMALLER = parse_study(STUDY_TEXT, {"training.batch_size": 2})
PAYLOAD = pack(split_parameters(build_model(STUDY_CONFIG), "silo").shared, "fp32")


def nothing(table: pd.DataFrame) -> pd.DataFrame:
    return table.iloc[:0]


def no_training_patient(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["split"] == "test"]


def one_class(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["split"] != "train") | (table["label"] == "head")]


def three_images(table: pd.DataFrame) -> pd.DataFrame:
    train = table[table["split"] == "train"]
    few = pd.concat([train[train["label"] == "head"].iloc[:2], train[train["label"] == "femur"].iloc[:1]])
    return pd.concat([few, table[table["split"] != "train"]])


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return the site file of a hospital whose manifest may be changed, with a split of its own."""
    file = write_site(tmp_path / "hospital")
    path = manifest(file)
    table = pd.read_csv(path, dtype=str)
    patients = sorted(table.loc[table["split"] != "test", "group"].unique())
    table.loc[table["group"].isin(patients[:2]), "split"] = "validation"
    table.loc[table["group"].isin(patients[2:]), "split"] = "train"
    table.to_csv(path, index=False)
    return file


def manifest(file: Path) -> Path:
    return file.parent / "images" / "manifest.csv"


def ask(app: ClientApp, kind: str, study: StudyConfig = STUDY_CONFIG) -> Message:
    number = {"query": 0, "train": 1, "evaluate": study.federation.rounds + 1}[kind]
    config = {STUDY: study.to_yaml(), STUDY_DIGEST: study.digest(), SERVER_ROUND: number}
    records = RecordDict({CONFIG: ConfigRecord(config)})
    if kind != "query":
        array = Array(dtype="uint8", shape=(len(PAYLOAD),), stype=TENSOR_STYPE, data=PAYLOAD)
        records[ARRAYS] = ArrayRecord({SHARED_TENSORS: array})
    return app(message=question(records, kind), context=context())


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("scarce", "code"),
    [
        (nothing, ExitCode.SPLIT_EMPTY),
        (no_training_patient, ExitCode.SPLIT_EMPTY),
        (one_class, ExitCode.CLASSES_TOO_FEW),
        (three_images, ExitCode.IMAGES_TOO_FEW),
    ],
)
def test_it_declines_by_code_and_answers_when_it_can(
    site: Path, scarce: Callable[[pd.DataFrame], pd.DataFrame], code: ExitCode
) -> None:
    told: list[Progress] = []
    app = build_app(lambda _context: site, told.append)
    whole = pd.read_csv(manifest(site), dtype=str)
    scarce(whole).to_csv(manifest(site), index=False)
    for kind in ("query", "train", "evaluate"):
        reply = ask(app, kind)
        assert reply.has_error()
        assert reply.error.reason == RefusalCode.DATA.value
        assert told[-1].phase == "refused"
        assert code.name in told[-1].text
    if scarce is three_images:
        assert not ask(app, "train", SMALLER).has_error(), "another study, the same data, the same process"
    whole.to_csv(manifest(site), index=False)
    assert not ask(app, "query").has_error()
    assert not ask(app, "train").has_error(), "no state was left that the whole data would contradict"
    assert not ask(app, "train", parse_study(STUDY_TEXT, {"seed": 8})).has_error()
