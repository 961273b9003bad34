"""Calibration, planes and the tidy table equal slow counts."""

import io

import numpy as np
import pandas as pd
import pytest

from semc.reporting.calibration import mean_ece, reliability
from semc.reporting.planes import plane_recalls, rank_among
from semc.reporting.predictions import Predictions
from semc.reporting.tidy import TIDY_COLUMNS, tidy_csv, tidy_rows
from tests.semc.reporting.made_predictions import CLASSES, compared, crossed, left_out, made


def _two_classes(confidences, right) -> Predictions:
    """Return answers that call class 0 with the given confidences."""
    first = np.asarray(confidences, dtype=np.float32)
    return Predictions(
        arm="a",
        seed=0,
        model_site="",
        test_site="north",
        patients=tuple(range(len(first))),
        labels=tuple(0 if hit else 1 for hit in right),
        probabilities_BK=np.stack([first, 1 - first], axis=1),
    )


def _slow_ece(record, bins):
    """Guo et al. 2017, image by image."""
    images = [
        (float(row.max()), int(row.argmax()) == label)
        for row, label in zip(record.probabilities_BK, record.labels, strict=True)
    ]
    ece = 0.0
    for m in range(1, bins + 1):
        inside = [(sure, hit) for sure, hit in images if (m - 1) / bins < sure <= m / bins]
        if inside:
            accuracy = sum(hit for _, hit in inside) / len(inside)
            confidence = sum(sure for sure, _ in inside) / len(inside)
            ece += len(inside) / len(images) * abs(accuracy - confidence)
    return ece


@pytest.mark.parametrize("bins", [1, 10, 15])
def test_ece_equals_a_slow_loop(bins):
    for skill in (0.2, 0.7, 1.0):
        record = made(skill)
        assert reliability([record], bins).ece == pytest.approx(_slow_ece(record, bins), abs=1e-9)


def test_calibration_by_hand():
    record = _two_classes([0.75] * 4 + [1.0] * 4, [True, True, True, False] * 2)
    found = reliability([record])
    assert [(item.num_images, item.confidence, item.accuracy) for item in found.bins] == [
        (4, 0.75, 0.75),
        (4, 1.0, 0.75),
    ]
    assert found.ece == pytest.approx(0.125)
    assert found.num_images == 8


def test_a_confidence_on_a_border_belongs_to_the_lower_bin():
    found = reliability([_two_classes([0.75, 0.8], [True, True])], num_bins=4)
    assert [item.num_images for item in found.bins] == [1, 1]


def test_overconfidence_is_seen_and_seeds_are_averaged():
    honest, boasting = made(0.68), made(0.2, seed=1)
    assert reliability([honest]).ece < 0.3 < reliability([boasting]).ece
    assert mean_ece([honest, boasting]) == pytest.approx(
        (reliability([honest]).ece + reliability([boasting]).ece) / 2
    )
    assert reliability([honest, boasting]).num_images == 240
    with pytest.raises(ValueError):
        reliability([])


def test_recall_of_planes_is_averaged_over_seeds_not_counted_twice():
    records = [made(0.7, seed=seed, site=site) for seed in (0, 1) for site in ("north", "south")]
    found = plane_recalls(records, CLASSES)
    for k, row in enumerate(found):
        hits = sum(
            label == k and called == k
            for record in records
            for label, called in zip(record.labels, record.predicted_B, strict=True)
        )
        support = sum(label == k for record in records if record.seed == 0 for label in record.labels)
        assert row.num_images == support
        assert row.recall == pytest.approx(hits / 2 / support)
        assert row.interval[0] < row.recall < row.interval[1]
    lacking = plane_recalls(records[:3], CLASSES)  # one site lacks a seed
    assert [row.num_images for row in lacking] == [row.num_images for row in found]
    assert plane_recalls([], CLASSES)[0].recall is None


def test_a_plane_without_images_has_no_recall():
    row = plane_recalls([_two_classes([0.9], [True])], ["head", "femur"])[1]
    assert (row.num_images, row.recall, row.interval) == (0, None, None)


def test_few_images_are_not_ranked():
    values = [(0.9, 50), (0.99, 9), (0.5, 10), (None, 0), (0.9, 20)]
    assert rank_among(values) == [1, None, 3, None, 1]


def test_tidy_has_one_line_per_record():
    records = [*compared(), *crossed(), *left_out()]
    table = tidy_rows(records)
    assert tuple(table.columns) == TIDY_COLUMNS
    assert len(table) == len(records)
    for number in (0, len(records) - 1):
        record, row = records[number], table.iloc[number]
        assert (row["arm"], row["protocol"], row["condition"], row["test_site"]) == (
            record.arm,
            record.protocol,
            record.condition,
            record.test_site,
        )
        assert row["macro_f1"] == record.confusion.macro_f1
        assert row["ece"] == pytest.approx(_slow_ece(record, 15), abs=1e-9)
        assert (row["num_images"], row["num_patients"]) == (120, 30)
    again = pd.read_csv(io.StringIO(tidy_csv(records)), keep_default_na=False)
    assert again["macro_f1"].tolist() == pytest.approx(table["macro_f1"].tolist())
    assert again["model_site"].tolist() == table["model_site"].tolist()


def test_no_record_gives_an_empty_table_with_its_columns():
    assert tuple(tidy_rows([]).columns) == TIDY_COLUMNS
