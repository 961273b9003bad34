"""Seconds and memory of a private step beside a step without privacy on the same weights and the same frames.

Both start from images in memory and end with changed weights. The step without privacy puts all frames in one batch.
Times are interleaved, so that a busy machine slows both; the ratio is that of their medians. `heads` is measured
through the trunk and, as it trains, from remembered features, both ways. Memory is the mechanism's share: the peak of
a step whose losses hold no activations.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from semc.config import parse_study
from semc.models import PooledFeatures, SEMCNet, build_model
from semc.objectives import SemcDpObjective
from semc.privacy.patient_dp import PatientDPOptimizer, private_step
from semc.privacy.secret_noise import SecretRng
from semc.training import build_optimizer
from tests.semc.privacy.peak_memory import PeakMemory, peak_memory

PATIENTS = 16
SETTINGS = (("heads", True), ("heads", False), ("heads+projection", False), ("all", False))
"""What is trained, and whether from remembered features."""
STUDY = """
name: private-step
data: {classes: [a, b, c, d, e, f], image_size: 64}
model: {backbone: small, samc_expansion: 2}
training: {local_steps: 1}
federation: {sites: [north]}
privacy: {mode: patient_dp, noise_multiplier: 2.0}
pretraining: {}
"""


@dataclass(frozen=True)
class Cost:
    """One setting's figures."""

    private_seconds: float
    plain_seconds: float
    gradient_bytes: int
    """Size of the trained weights' gradient."""
    memory: PeakMemory


class Setting:
    """One trainable set with the frames of 16 patients."""

    def __init__(self, trainable: str, frames: int, *, remembered: bool = False) -> None:
        study = parse_study(STUDY, {"privacy.trainable": trainable})
        network = build_model(study)
        assert isinstance(network, SEMCNet)
        self.network = network.eval()
        self.objective = SemcDpObjective(study)
        self.remembered = remembered
        self.trained = [p for p in network.parameters() if p.requires_grad]
        self.plain = build_optimizer(network, study.training)
        self.private = PatientDPOptimizer(
            build_optimizer(network, study.training),
            noise_multiplier=2.0,
            max_grad_norm=1.0,
            expected_patients=float(PATIENTS),
            secret=SecretRng(),
        )
        side = study.data.image_size
        images = torch.randn(PATIENTS * frames, 3, side, side)
        labels = torch.randint(len(study.data.classes), (PATIENTS * frames,))
        self.everyone = self._prepared(images, labels)
        self.patients = [
            self._prepared(*part) for part in zip(images.split(frames), labels.split(frames), strict=True)
        ]

    def private_once(self) -> None:
        private_step(self.private, [lambda given=given: self._loss(given) for given in self.patients])

    def plain_once(self) -> None:
        self.plain.zero_grad(set_to_none=True)
        self._loss(self.everyone).backward()
        self.plain.step()
        self.plain.zero_grad(set_to_none=True)

    def memory(self) -> PeakMemory:
        """Return the mechanism's peak, its losses replaced by ones that hold no activations."""
        losses = [lambda: torch.stack([p[..., :1].sum() for p in self.trained]).sum() for _ in range(3)]
        return peak_memory(lambda: private_step(self.private, losses))

    def _prepared(self, images: Tensor, labels: Tensor) -> tuple[PooledFeatures | Tensor, Tensor]:
        if not self.remembered:
            return images, labels
        with torch.no_grad():
            return PooledFeatures.joined(self.network.pooled(images).by_image()), labels

    def _loss(self, given: tuple[PooledFeatures | Tensor, Tensor]) -> Tensor:
        source, labels = given
        remembered = isinstance(source, PooledFeatures)
        output = self.network.classify(source) if remembered else self.network(source)
        return self.objective.loss(output, labels)


def interleaved(first: Callable[[], None], second: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Return the median seconds of two calls, taken in turn."""
    first()
    second()
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for call, into in zip((first, second), seconds, strict=True):
            started = time.perf_counter()
            call()
            into.append(time.perf_counter() - started)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def measured(trainable: str, frames: int, *, remembered: bool) -> Cost:
    setting = Setting(trainable, frames, remembered=remembered)
    private, plain = interleaved(setting.private_once, setting.plain_once, 25 if remembered else 7)
    gradient_bytes = sum(p.numel() * p.element_size() for p in setting.trained)
    return Cost(private, plain, gradient_bytes, setting.memory())


def row(name: str, frames: int, cost: Cost) -> str:
    """Return a line of the table."""
    size, memory = cost.gradient_bytes, cost.memory
    return (
        f"{name:<22}{frames:>7}{1e3 * cost.private_seconds:>12.1f}{1e3 * cost.plain_seconds:>10.1f}"
        f"{cost.private_seconds / cost.plain_seconds:>8.2f}{size / 1e3:>14.1f}"
        f"{memory.tensors / size:>10.2f}{memory.python / size:>10.2f}"
    )


@pytest.mark.bench
@pytest.mark.timeout(1800)
def test_seconds_and_memory_of_a_private_step(capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        costs = [
            (f"{trainable}{', remembered' if remembered else ''}", frames, cost)
            for trainable, remembered in SETTINGS
            for frames in (1, 2, 4, 8)
            for cost in [measured(trainable, frames, remembered=remembered)]
        ]
    finally:
        torch.set_num_threads(before)
    titles = ("private ms", "plain ms", "ratio", "gradient kB", "tensors", "python")
    widths = (12, 10, 8, 14, 10, 10)
    with capsys.disabled():
        print(f"\n{PATIENTS} patients, small at 64 px, one thread; memory in gradients")
        head = "".join(f"{title:>{width}}" for title, width in zip(titles, widths, strict=True))
        print(f"{'trained':<22}{'frames':>7}{head}")
        print("\n".join(row(*entry) for entry in costs))
    for _, _, cost in costs:
        assert cost.memory.tensors < 2.5 * cost.gradient_bytes
        # A gradient of a few kB is smaller than the interpreter's own objects.
        if cost.gradient_bytes > 100_000:
            assert cost.memory.tensors + cost.memory.python < 2.5 * cost.gradient_bytes
