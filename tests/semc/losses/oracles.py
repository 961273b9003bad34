"""The contrastive equations as slow loops over Python numbers."""

from __future__ import annotations

import math

from semc.losses import ContrastivePool


def slow_supcon(pool: ContrastivePool, anchors: int, temperature: float) -> list[float | None]:
    rows = pool.embeddings_PD.tolist()
    labels = pool.labels_P.tolist()
    losses: list[float | None] = []
    for i in range(anchors):
        others = [a for a in range(len(rows)) if a != i]
        score = {a: sum(x * y for x, y in zip(rows[i], rows[a], strict=True)) / temperature for a in others}
        positives = [p for p in others if labels[p] == labels[i]]
        if not positives:
            losses.append(None)
            continue
        denominator = math.log(math.fsum(math.exp(score[a]) for a in others))
        losses.append(-math.fsum(score[p] - denominator for p in positives) / len(positives))
    return losses


def slow_selfcon(
    pool: ContrastivePool, anchors: int, temperature: float, k: int, threshold: float
) -> list[float | None]:
    """The definition, element by element."""
    rows, ids = pool.embeddings_PD.tolist(), pool.ids_P.tolist()
    batch = pool.num_batch_rows

    def cosine(i: int, j: int) -> float:
        return math.fsum(x * y for x, y in zip(rows[i], rows[j], strict=True))

    def nearest(i: int) -> set[int]:
        candidates = [a for a in range(len(rows)) if ids[a] != ids[i]]
        best = sorted(candidates, key=lambda a: -cosine(i, a))[:k]
        return {a for a in best if cosine(i, a) >= threshold}

    losses: list[float | None] = []
    for i in range(anchors):
        views = {a for a in range(batch) if a != i and ids[a] == ids[i]}
        mined = {a for a in nearest(i) if a >= batch or i in nearest(a)}
        positives = views | mined
        denominator_rows = [
            a
            for a in range(len(rows))
            if a != i and not (a >= batch and ids[a] == ids[i] and a not in positives)
        ]
        if not positives:
            losses.append(None)
            continue
        denominator = math.log(math.fsum(math.exp(cosine(i, a) / temperature) for a in denominator_rows))
        losses.append(
            -math.fsum(cosine(i, p) / temperature - denominator for p in positives) / len(positives)
        )
    return losses


def slow_gpaco(
    pool: ContrastivePool, logits: list[list[float]], adjustment: list[float], settings_: dict[str, float]
) -> tuple[list[float], list[float]]:
    """Return (losses, entropies of the targets), element by element."""
    rows, labels = pool.embeddings_PD.tolist(), pool.labels_P.tolist()
    losses, floors = [], []
    for i, scores in enumerate(logits):
        present = [c for c in range(len(scores)) if adjustment[c] > -math.inf]
        entries: list[tuple[float, float]] = []  # score, weight
        for c in present:
            target = settings_["smoothing"] / len(present) + (1 - settings_["smoothing"]) * (labels[i] == c)
            entries.append((scores[c] + adjustment[c], settings_["beta"] * target))
        for a in range(len(rows)):
            if a != i:
                cosine = math.fsum(x * y for x, y in zip(rows[i], rows[a], strict=True))
                entries.append(
                    (cosine / settings_["temperature"], settings_["alpha"] * (labels[a] == labels[i]))
                )
        denominator = math.log(math.fsum(math.exp(score) for score, _ in entries))
        mass = math.fsum(weight for _, weight in entries)
        losses.append(math.fsum(weight * (denominator - score) for score, weight in entries) / mass)
        floors.append(-math.fsum(w / mass * math.log(w / mass) for _, w in entries if w > 0))
    return losses, floors
