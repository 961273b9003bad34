"""The contrast of semc_dp against a slow loop."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from semc.losses import prototype_contrast


def slow(
    embeddings: torch.Tensor, labels: list[int], prototypes: torch.Tensor, temperature: float
) -> list[float]:
    """The definition, view by view; rows in the order expert, frame."""
    experts, frames = embeddings.shape[:2]
    centres = [(c / c.norm()).tolist() for c in prototypes]
    losses = []
    for n in range(experts):
        for f in range(frames):
            anchor = embeddings[n, f].tolist()

            def score(row: list[float], anchor: list[float] = anchor) -> float:
                return math.fsum(x * y for x, y in zip(anchor, row, strict=True)) / temperature

            views = [embeddings[m, f].tolist() for m in range(experts) if m != n]
            views += [
                embeddings[m, g].tolist()
                for g in range(frames)
                if g != f and labels[g] == labels[f]
                for m in range(experts)
            ]
            positives = [score(row) for row in [*views, centres[labels[f]]]]
            denominator = math.fsum(math.exp(score(row)) for row in [*views, *centres])
            losses.append(-math.fsum(p - math.log(denominator) for p in positives) / len(positives))
    return losses


@settings(max_examples=60, deadline=None)
@given(
    experts=st.integers(1, 3),
    frames=st.integers(1, 6),
    classes=st.integers(1, 4),
    temperature=st.sampled_from([0.05, 0.2, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_equals_the_slow_loop(experts: int, frames: int, classes: int, temperature: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    embeddings = functional.normalize(
        torch.randn(experts, frames, 4, generator=generator, dtype=torch.float64), dim=2
    )
    labels = torch.randint(classes, (frames,), generator=generator)
    prototypes = 3 * torch.randn(classes, 4, generator=generator, dtype=torch.float64)
    found = prototype_contrast(embeddings, labels, prototypes, temperature)
    assert bool(found.active_R.all())
    expected = slow(embeddings, labels.tolist(), prototypes, temperature)
    assert found.loss_R.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_prototypes_and_views_are_pulled_together() -> None:
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(2, 6, 8, generator=generator).requires_grad_()
    prototypes = torch.randn(3, 8, generator=generator).requires_grad_()
    labels = torch.arange(6) % 3
    optimizer = torch.optim.SGD([raw, prototypes], lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        prototype_contrast(functional.normalize(raw, dim=2), labels, prototypes, 0.2).loss_R.mean().backward()
        optimizer.step()
    similarity = functional.normalize(raw, dim=2) @ functional.normalize(prototypes, dim=1).T
    assert similarity.argmax(dim=2).equal(labels.expand(2, -1))


def test_the_loss_does_not_depend_on_the_length_of_prototypes() -> None:
    embeddings = functional.normalize(torch.randn(2, 3, 4, dtype=torch.float64), dim=2)
    prototypes, labels = torch.randn(2, 4, dtype=torch.float64), torch.tensor([0, 1, 0])
    first = prototype_contrast(embeddings, labels, prototypes, 0.2).loss_R
    torch.testing.assert_close(first, prototype_contrast(embeddings, labels, 7 * prototypes, 0.2).loss_R)
