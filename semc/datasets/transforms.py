"""From decoded pixels to network input: CLAHE and resize once, augmentation per draw, normalisation last.

Evaluation resizes the whole picture to the network's square without keeping the aspect ratio: no black bars,
whose size would name the centre, and nothing is cropped away. Training applies the same resize, then one
affine warp per image that holds rotation, flips and crop together, so pixels are interpolated once.

`reference` lists the released code's steps: CLAHE (a switch of its own), horizontal flip, rotation by 10
degrees, random resized crop 0.8-1, colour jitter, blur, erasing. Its strengths here: jitter 0.2, blur in a
fifth and erasing in a quarter of the images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semc.config.data import DataConfig

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLAHE_CLIP, _CLAHE_TILES = 2.0, (8, 8)
_PAPER_DEGREES, _PAPER_BRIGHTNESS = 15.0, 0.2
_REFERENCE_DEGREES, _REFERENCE_JITTER = 10.0, 0.2
_CROP_AREA, _CROP_RATIO = (0.8, 1.0), (3 / 4, 4 / 3)
_BLUR_SHARE, _BLUR_SIGMA = 0.2, (0.1, 1.0)
_ERASE_SHARE, _ERASE_AREA = 0.25, (0.02, 0.15)

Augmentation = Literal["none", "paper", "reference"]


@dataclass(frozen=True)
class Normalisation:
    """Per-channel mean and standard deviation of pixels in [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def normalisation_of(data: DataConfig, weights: str) -> Normalisation:
    """Return what the network's weights expect.

    Args:
        data: Whose `normalisation` is `none` (pixels stay in [0, 1]) or `weights`.
        weights: `model.weights` of the study: `none`, `torchvision` or a file name.
    """
    if data.normalisation == "none":
        return Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    if weights == "none":
        return Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return Normalisation(_IMAGENET_MEAN, _IMAGENET_STD)


def prepare(pixels: NDArray[np.uint8], data: DataConfig) -> NDArray[np.uint8]:
    """Apply CLAHE at native resolution, where the study wants it, and resize to the network's square.

    Args:
        pixels: uint8 [H, W] or [H, W, 3].
        data: Image size S and the CLAHE switch.

    Returns:
        uint8 [S, S] or [S, S, 3].
    """
    if data.clahe:
        pixels = _clahe(pixels)
    size = data.image_size
    if pixels.shape[:2] == (size, size):
        return pixels
    shrinks = pixels.shape[0] >= size and pixels.shape[1] >= size
    resized = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, dtype=np.uint8)


def augment(
    images: Sequence[NDArray[np.uint8]], kind: Augmentation, rng: np.random.Generator
) -> list[NDArray[np.uint8]]:
    """Return augmented copies of prepared images, a function of the images, their order and `rng`.

    Args:
        images: uint8 [S, S] or [S, S, 3] each.
        kind: The study's augmentation.
        rng: Seeded for this batch.
    """
    if kind == "none":
        return list(images)
    if kind == "paper":
        return [_paper(image, rng) for image in images]
    return [_reference(image, rng) for image in images]


def to_tensor(images: Sequence[NDArray[np.uint8]], normalisation: Normalisation) -> Tensor:
    """Stack prepared images into images_BCHW, float32 and normalised; grey is repeated to three channels."""
    mean_C11 = torch.tensor(normalisation.mean).view(3, 1, 1)
    std_C11 = torch.tensor(normalisation.std).view(3, 1, 1)
    if all(image.ndim == 2 for image in images):
        pixels = torch.from_numpy(np.stack(images)).unsqueeze(1)
    else:
        colour = [image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in images]
        pixels = torch.from_numpy(np.stack(colour)).permute(0, 3, 1, 2)
    images_BCHW = (pixels.float() / 255.0 - mean_C11) / std_C11
    return images_BCHW.contiguous()


def _clahe(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    equaliser = cv2.createCLAHE(_CLAHE_CLIP, _CLAHE_TILES)
    if pixels.ndim == 2:
        return np.asarray(equaliser.apply(pixels), dtype=np.uint8)
    lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
    lab[..., 0] = equaliser.apply(np.ascontiguousarray(lab[..., 0]))
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), dtype=np.uint8)


def _paper(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Rotation, horizontal and vertical flip, brightness."""
    degrees, flip_x, flip_y = (
        rng.uniform(-_PAPER_DEGREES, _PAPER_DEGREES),
        rng.random() < 0.5,
        rng.random() < 0.5,
    )
    size = image.shape[0]
    warped = _warp(image, degrees, flip_x, flip_y, (0.0, 0.0, size, size))
    return _scaled(warped, rng.uniform(1 - _PAPER_BRIGHTNESS, 1 + _PAPER_BRIGHTNESS), 0.0)


def _reference(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Horizontal flip, rotation, random resized crop, jitter, blur, erasing."""
    degrees, flip_x = rng.uniform(-_REFERENCE_DEGREES, _REFERENCE_DEGREES), rng.random() < 0.5
    warped = _warp(image, degrees, flip_x, False, _crop(image.shape[0], rng))
    contrast, brightness = rng.uniform(1 - _REFERENCE_JITTER, 1 + _REFERENCE_JITTER, 2)
    grey = float(warped.mean()) * brightness
    jittered = _scaled(warped, contrast * brightness, grey * (1 - contrast))
    if rng.random() < _BLUR_SHARE:
        jittered = np.asarray(cv2.GaussianBlur(jittered, (5, 5), rng.uniform(*_BLUR_SIGMA)), dtype=np.uint8)
    if rng.random() < _ERASE_SHARE:
        _erase(jittered, rng)
    return jittered


def _warp(
    image: NDArray[np.uint8],
    degrees: float,
    flip_x: bool,
    flip_y: bool,
    box: tuple[float, float, float, float],
) -> NDArray[np.uint8]:
    """Show the source rectangle `box` = (left, top, width, height), turned and flipped, in the square."""
    size = image.shape[0]
    left, top, width, height = box
    angle = np.deg2rad(degrees)
    scale_x = (-1 if flip_x else 1) * width / size
    scale_y = (-1 if flip_y else 1) * height / size
    matrix = np.array(
        [
            [np.cos(angle) * scale_x, -np.sin(angle) * scale_y, 0.0],
            [np.sin(angle) * scale_x, np.cos(angle) * scale_y, 0.0],
        ]
    )
    middle = (size - 1) / 2
    source = np.array([left + (width - 1) / 2, top + (height - 1) / 2])
    matrix[:, 2] = source - matrix[:, :2] @ np.array([middle, middle])
    warped = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return np.asarray(warped, dtype=np.uint8)


def _crop(size: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    area = rng.uniform(*_CROP_AREA) * size * size
    ratio = np.exp(rng.uniform(np.log(_CROP_RATIO[0]), np.log(_CROP_RATIO[1])))
    width, height = min(np.sqrt(area * ratio), size), min(np.sqrt(area / ratio), size)
    return rng.uniform(0, size - width), rng.uniform(0, size - height), width, height


def _scaled(image: NDArray[np.uint8], factor: float, offset: float) -> NDArray[np.uint8]:
    """Return round(image * factor + offset), saturated, through a table of 256 values."""
    table = np.clip(np.arange(256) * factor + offset + 0.5, 0, 255).astype(np.uint8)
    looked_up: NDArray[np.uint8] = table[image]
    return looked_up


def _erase(image: NDArray[np.uint8], rng: np.random.Generator) -> None:
    """Blacken one random rectangle, in place."""
    size = image.shape[0]
    area, ratio = rng.uniform(*_ERASE_AREA) * size * size, np.exp(rng.uniform(-1, 1))
    height, width = int(min(np.sqrt(area * ratio), size)), int(min(np.sqrt(area / ratio), size))
    top, left = int(rng.integers(0, size - height + 1)), int(rng.integers(0, size - width + 1))
    image[top : top + height, left : left + width] = 0
