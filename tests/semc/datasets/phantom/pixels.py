"""A cohort as coarse pixels and a linear model of them: cheap measures of what the phantom makes hard."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from semc.datasets.phantom import PhantomConfig, PhantomFrame, plan_centre, render_frame

SIDE = 8


@dataclass(frozen=True)
class Pixels:
    """Coarse images [M, SIDE²], labels and frames of one centre's split."""

    images_MP: NDArray[np.float64]
    labels_M: NDArray[np.int64]
    frames: tuple[PhantomFrame, ...]


@lru_cache(maxsize=32)
def centre_pixels(config: PhantomConfig, centre: str, split: str) -> Pixels:
    frames = tuple(frame for frame in plan_centre(config, centre) if frame.split == split)
    images = [
        cv2.resize(render_frame(config, frame), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        for frame in frames
    ]
    labels = [config.classes.index(frame.plane) for frame in frames]
    return Pixels(np.stack(images).reshape(len(frames), -1) / 255.0, np.array(labels), frames)


class LinearModel:
    """Ridge regression onto one-hot labels."""

    def __init__(self, images_MP: NDArray[np.float64], labels_M: NDArray[np.int64], num_classes: int) -> None:
        self._mean = images_MP.mean(axis=0)
        centred = images_MP - self._mean
        self._weights = np.linalg.solve(
            centred.T @ centred + 3.0 * np.eye(centred.shape[1]), centred.T @ (np.eye(num_classes)[labels_M])
        )
        self._bias = np.bincount(labels_M, minlength=num_classes) / len(labels_M)

    def predict(self, images_MP: NDArray[np.float64]) -> NDArray[np.int64]:
        return ((images_MP - self._mean) @ self._weights + self._bias).argmax(axis=1)

    def accuracy(self, pixels: Pixels) -> float:
        return float((self.predict(pixels.images_MP) == pixels.labels_M).mean())
