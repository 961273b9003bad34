"""Predictions: checked when made, the same after a file, and refused where a file was tampered with."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semc.exit_codes import ExitCode, SemcError
from semc.reporting.predictions import Predictions, number_patients, read_predictions, write_predictions
from tests.semc.reporting.made_predictions import CLASSES, compared, crossed, left_out, made


def _same(first: Predictions, second: Predictions) -> bool:
    return (
        first.key == second.key
        and (first.patients, first.labels) == (second.patients, second.labels)
        and np.array_equal(first.probabilities_BK, second.probabilities_BK)
    )


def test_a_file_gives_back_what_was_written(tmp_path: Path):
    written = [*compared(), *crossed(), *left_out()]
    write_predictions(tmp_path / "deep" / "predictions.parquet", written, CLASSES)
    read, classes = read_predictions(tmp_path / "deep" / "predictions.parquet")
    assert classes == CLASSES
    assert len(read) == len(written)
    assert all(map(_same, read, written))
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["predictions.parquet"]


def test_the_file_has_the_agreed_columns_and_nothing_else(tmp_path: Path):
    write_predictions(tmp_path / "p.parquet", [made(0.5)], CLASSES)
    key = ["arm", "seed", "protocol", "condition", "model_site", "test_site"]
    assert pq.read_table(tmp_path / "p.parquet").column_names == [
        *key,
        "patient",
        "label",
        "p_0",
        "p_1",
        "p_2",
    ]


def test_no_record_is_also_a_file(tmp_path: Path):
    write_predictions(tmp_path / "p.parquet", [], CLASSES)
    assert read_predictions(tmp_path / "p.parquet") == ([], CLASSES)


def test_derived_values():
    record = Predictions(
        arm="fedavg",
        seed=3,
        model_site="",
        test_site="north",
        patients=(0, 0, 1),
        labels=(0, 1, 1),
        probabilities_BK=np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], dtype=np.float32),
    )
    assert record.predicted_B.tolist() == [0, 0, 1]
    assert record.confusion.counts.tolist() == [[1, 0], [1, 1]]
    assert (record.num_images, record.num_patients, record.num_classes) == (3, 2, 2)
    with pytest.raises(ValueError):
        record.probabilities_BK[0, 0] = 0


def test_a_record_leaves_the_callers_array_alone():
    mine = np.array([[0.9, 0.1]], dtype=np.float32)
    record = Predictions("fedavg", 0, "", "north", (0,), (0,), mine)
    mine[0] = (0.5, 0.5)
    assert record.probabilities_BK[0, 0] == np.float32(0.9)


@pytest.mark.parametrize(
    "change",
    [
        {"labels": (0,) * 119 + (3,)},
        {"labels": (0,)},
        {"patients": (-1,) * 120},
        {"probabilities_BK": np.full((120, 3), 0.5, dtype=np.float32)},
        {"probabilities_BK": np.full((120, 3), np.nan, dtype=np.float32)},
        {"probabilities_BK": np.ones((120, 1), dtype=np.float32)},
        {"probabilities_BK": np.ones((0, 3), dtype=np.float32), "labels": (), "patients": ()},
        {"protocol": "everything"},
        {"arm": ""},
        {"model_site": "south"},
    ],
)
def test_what_is_no_prediction_is_refused(change):
    with pytest.raises(ValueError):
        replace(made(0.5), **change)


def test_two_records_of_one_key_and_other_classes_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="share"):
        write_predictions(tmp_path / "p.parquet", [made(0.5), made(0.6)], CLASSES)
    with pytest.raises(ValueError, match="classes"):
        write_predictions(tmp_path / "p.parquet", [made(0.5)], ["head", "femur"])


def test_patients_are_numbered_by_appearance():
    assert number_patients(["b", "a", "b", "c"]) == (0, 1, 0, 2)


def _tampered(path: Path, change) -> None:
    write_predictions(path, [made(0.5)], CLASSES)
    pq.write_table(change(pq.read_table(path)), path)


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns(["patient"]),
        lambda table: table.append_column("patient_id", pa.array(["secret"] * len(table))),
        lambda table: table.replace_schema_metadata({}),
        lambda table: table.replace_schema_metadata(
            {b"semc.predictions": b'{"format_version":2,"classes":["a","b"]}'}
        ),
        lambda table: table.set_column(
            table.schema.get_field_index("label"), "label", pa.array([7] * len(table), pa.int64())
        ),
        lambda table: table.set_column(
            table.schema.get_field_index("label"), "label", pa.array([None] * len(table), pa.int64())
        ),
        lambda table: table.set_column(
            table.schema.get_field_index("protocol"), "protocol", pa.array(["x"] * len(table), pa.string())
        ),
    ],
)
def test_a_changed_file_is_refused_in_one_line(tmp_path: Path, change):
    _tampered(tmp_path / "p.parquet", change)
    with pytest.raises(SemcError) as caught:
        read_predictions(tmp_path / "p.parquet")
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID
    assert "secret" not in caught.value.line()
    assert "\n" not in caught.value.line()


def test_no_file_and_no_parquet_are_told(tmp_path: Path):
    with pytest.raises(SemcError) as caught:
        read_predictions(tmp_path / "p.parquet")
    assert caught.value.code is ExitCode.DATA_NOT_FOUND
    (tmp_path / "p.parquet").write_text("not a table")
    with pytest.raises(SemcError) as caught:
        read_predictions(tmp_path / "p.parquet")
    assert caught.value.code is ExitCode.CHECKPOINT_INVALID
    assert str(tmp_path) not in caught.value.line()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SemcError) as caught:
        write_predictions(tmp_path / "file" / "p.parquet", [made(0.5)], CLASSES)
    assert caught.value.code is ExitCode.DISK
