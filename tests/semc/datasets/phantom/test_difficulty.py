"""What makes the phantom worth training on, measured with linear and nearest-neighbour models of pixels."""

from __future__ import annotations

import numpy as np
import pytest

from semc.datasets.phantom import PhantomConfig

from .pixels import LinearModel, Pixels, centre_pixels

CONFIG = PhantomConfig(
    image_size=32,
    class_prior=None,
    patients_per_centre=50,
    test_patients_per_centre=30,
    frames_per_patient=4,
)
CENTRES = CONFIG.centre_names


def own_and_other(config: PhantomConfig) -> tuple[float, float]:
    """Accuracy of a linear model of the first centre at home and at the others."""
    train = centre_pixels(config, CENTRES[0], "train")
    model = LinearModel(train.images_MP, train.labels_M, len(config.classes))
    scores = [model.accuracy(centre_pixels(config, centre, "test")) for centre in CENTRES]
    return scores[0], float(np.mean(scores[1:]))


def centre_accuracy(config: PhantomConfig) -> float:
    """Accuracy of a linear model that names the centre of unseen patients."""
    sides = []
    for split in ("train", "test"):
        parts = [centre_pixels(config, centre, split).images_MP for centre in CENTRES]
        labels = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        sides.append((np.concatenate(parts), labels))
    model = LinearModel(*sides[0], len(CENTRES))
    return float((model.predict(sides[1][0]) == sides[1][1]).mean())


def test_centres_are_alike_at_severity_zero_and_told_apart_above() -> None:
    assert centre_accuracy(CONFIG.model_copy(update={"severity": 0.0})) < 0.45
    assert centre_accuracy(CONFIG) > 0.9


def test_the_drop_across_centres_grows_with_severity() -> None:
    drops = []
    for severity in (0.0, 0.3, 1.0):
        own, other = own_and_other(CONFIG.model_copy(update={"severity": severity}))
        drops.append(own - other)
    assert abs(drops[0]) < 0.12
    assert drops[0] + 0.15 < drops[1] < drops[2] + 0.1
    assert drops[2] > 0.35


def test_a_linear_model_misses_most_of_other_and_near_misses_are_why() -> None:
    def recall_once(near_miss: float, seed: int) -> float:
        config = CONFIG.model_copy(update={"near_miss": near_miss, "severity": 0.0, "seed": seed})
        train, test = (centre_pixels(config, CENTRES[0], split) for split in ("train", "test"))
        model = LinearModel(train.images_MP, train.labels_M, len(config.classes))
        is_other = test.labels_M == config.classes.index("other")
        return float((model.predict(test.images_MP)[is_other] == config.classes.index("other")).mean())

    def recall(near_miss: float) -> float:
        return float(np.mean([recall_once(near_miss, seed) for seed in (1, 2)]))

    assert recall(0.6) < 0.3
    assert recall(0.6) + 0.1 < recall(0.0)


def test_a_split_by_frame_scores_above_a_split_by_patient() -> None:
    pixels = centre_pixels(CONFIG, CENTRES[0], "train")

    def nearest(train_M: np.ndarray) -> float:
        known, asked = pixels.images_MP[train_M], pixels.images_MP[~train_M]
        distance = ((asked[:, None] - known[None]) ** 2).sum(axis=2)
        return float((pixels.labels_M[train_M][distance.argmin(axis=1)] == pixels.labels_M[~train_M]).mean())

    by_frame = np.array([frame.frame < 3 for frame in pixels.frames])
    patients = sorted({frame.patient for frame in pixels.frames})
    held_out = set(patients[::4])
    by_patient = np.array([frame.patient not in held_out for frame in pixels.frames])
    assert nearest(by_frame) > nearest(by_patient) + 0.05


@pytest.mark.parametrize("leaks", [True, False])
def test_a_burnt_in_marker_wins_at_home_and_fails_in_the_reserved_centre(leaks: bool) -> None:
    config = CONFIG.model_copy(
        update={"overlay_leaks_class": leaks, "reserved_centre": True, "severity": 0.0}
    )

    def bottom(pixels: Pixels) -> np.ndarray:
        return pixels.images_MP[:, -8:]

    train = centre_pixels(config, CENTRES[0], "train")
    model = LinearModel(bottom(train), train.labels_M, len(config.classes))
    home, reserved = (centre_pixels(config, centre, "test") for centre in (CENTRES[0], "reserved"))
    at_home = float((model.predict(bottom(home)) == home.labels_M).mean())
    away = float((model.predict(bottom(reserved)) == reserved.labels_M).mean())
    if leaks:
        assert at_home > 0.9
        assert away < 0.1
    else:
        assert abs(at_home - away) < 0.2, "control: without the marker the reserved centre scores alike"
