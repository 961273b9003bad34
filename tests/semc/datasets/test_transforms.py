from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from semc.config import DataConfig
from semc.datasets.transforms import augment, normalisation_of, prepare, to_tensor


def data(**settings: object) -> DataConfig:
    return DataConfig.model_validate({"classes": ("a", "b"), "image_size": 32, **settings})


def picture(size: int = 32) -> np.ndarray:
    """A smooth picture that no flip or turn maps to itself."""
    y, x = np.mgrid[0:size, 0:size] / size
    return (40 + 120 * x + 60 * y * y).astype(np.uint8)


def test_prepare_fills_the_square_with_the_whole_picture() -> None:
    wide = np.zeros((20, 80), dtype=np.uint8)
    wide[:, 40:] = 200
    resized = prepare(wide, data())
    assert resized.shape == (32, 32)
    assert resized[:, :15].max() == 0
    assert resized[:, 17:].min() == 200
    assert prepare(np.zeros((20, 80, 3), dtype=np.uint8), data()).shape == (32, 32, 3)


def test_clahe_is_opencvs_at_native_resolution() -> None:
    dull = (np.random.default_rng(0).normal(100, 4, (64, 64))).clip(0, 255).astype(np.uint8)
    expected = cv2.resize(cv2.createCLAHE(2.0, (8, 8)).apply(dull), (32, 32), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(prepare(dull, data(clahe=True)), expected)
    assert prepare(dull, data(clahe=True)).std() > prepare(dull, data()).std()
    colour = np.stack([dull] * 3, axis=2)
    assert prepare(colour, data(clahe=True)).std() > prepare(colour, data()).std()


@pytest.mark.parametrize("kind", ["paper", "reference"])
def test_augmentation_is_a_function_of_the_seed_and_spares_the_original(kind: str) -> None:
    images = [picture(), np.stack([picture()] * 3, axis=2)]
    before = [image.copy() for image in images]
    first = augment(images, kind, np.random.default_rng(5))  # type: ignore[arg-type]
    again = augment(images, kind, np.random.default_rng(5))  # type: ignore[arg-type]
    other = augment(images, kind, np.random.default_rng(6))  # type: ignore[arg-type]
    for a, b, c, original, kept in zip(first, again, other, images, before, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
        assert a.shape == original.shape
        np.testing.assert_array_equal(original, kept)


def test_paper_flips_both_ways_in_half_of_the_draws() -> None:
    image = np.zeros((32, 32), dtype=np.uint8)
    image[4:10, 4:10] = 200
    corners = np.zeros((2, 2))
    rng = np.random.default_rng(0)
    for drawn in augment([image] * 400, "paper", rng):
        y, x = (np.argwhere(drawn > 60).mean(axis=0) > 16).astype(int)
        corners[y, x] += 1
    assert corners.min() > 60, "each of the four flip combinations is drawn about 100 times of 400"


def test_paper_turns_by_at_most_15_degrees_and_scales_brightness_by_a_fifth() -> None:
    bar = np.zeros((65, 65), dtype=np.uint8)
    bar[31:34, 8:57] = 200
    angles, peaks = [], []
    for drawn in augment([bar] * 200, "paper", np.random.default_rng(1)):
        points = np.argwhere(drawn > 80) - 32.0
        _, _, axes = np.linalg.svd(points, full_matrices=False)
        angles.append(abs(np.degrees(np.arctan(axes[0, 0] / axes[0, 1]))))
        peaks.append(int(drawn.max()))
    assert max(angles) < 15.5
    assert max(angles) > 12
    assert 158 <= min(peaks) < 170
    assert 230 < max(peaks) <= 241


def test_reference_crops_never_less_than_its_area_and_never_flips_upside_down() -> None:
    top = np.zeros((64, 64), dtype=np.uint8)
    top[:16] = 200
    for drawn in augment([top] * 100, "reference", np.random.default_rng(2)):
        assert drawn[:8].mean() > drawn[-8:].mean()


def test_normalisation_and_channels() -> None:
    grey, colour = np.full((4, 4), 255, dtype=np.uint8), np.zeros((4, 4, 3), dtype=np.uint8)
    plain = to_tensor([grey, colour], normalisation_of(data(normalisation="none"), "torchvision"))
    assert plain.shape == (2, 3, 4, 4)
    assert plain.dtype == torch.float32
    assert plain[0].min() == 1.0
    assert plain[1].max() == 0.0
    scratch = to_tensor([grey], normalisation_of(data(), "none"))
    assert torch.equal(scratch, torch.full((1, 3, 4, 4), 2.0))
    imagenet = to_tensor([grey], normalisation_of(data(), "torchvision"))
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(imagenet[0, :, 0, 0], expected)
