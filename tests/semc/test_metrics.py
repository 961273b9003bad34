"""Scores from counts, each against a slow loop and, where installed, scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semc.metrics import Confusion

K = 5
PAIRS = st.lists(st.tuples(st.integers(0, K - 1), st.integers(0, K - 1)), max_size=40)


def _confusion(pairs: list[tuple[int, int]]) -> Confusion:
    return Confusion.from_predictions([t for t, _ in pairs], [p for _, p in pairs], K)


def _oracle(pairs: list[tuple[int, int]]) -> dict[str, float]:
    """Every score by counting pairs one by one."""
    recalls, f1s = [], []
    for k in range(K):
        hits = sum(1 for t, p in pairs if t == k and p == k)
        support = sum(1 for t, _ in pairs if t == k)
        called = sum(1 for _, p in pairs if p == k)
        if support == 0:
            continue
        precision = hits / called if called else 0.0
        recall = hits / support
        recalls.append(recall)
        f1s.append(2 * precision * recall / (precision + recall) if hits else 0.0)
    return {
        "accuracy": sum(1 for t, p in pairs if t == p) / len(pairs),
        "macro_recall": sum(recalls) / len(recalls),
        "balanced_accuracy": sum(recalls) / len(recalls),
        "macro_f1": sum(f1s) / len(f1s),
    }


@settings(max_examples=150, deadline=None)
@given(PAIRS)
def test_scores_equal_counting_one_by_one(pairs: list[tuple[int, int]]):
    confusion = _confusion(pairs)
    if not pairs:
        assert confusion.accuracy is confusion.macro_f1 is confusion.balanced_accuracy is None
        return
    for name, value in _oracle(pairs).items():
        assert getattr(confusion, name) == pytest.approx(value, abs=1e-12), name


@settings(max_examples=60, deadline=None)
@given(PAIRS.filter(lambda pairs: len(pairs) > 0))
def test_scores_equal_scikit_learn(pairs: list[tuple[int, int]]):
    metrics = pytest.importorskip("sklearn.metrics")
    truth, called = [t for t, _ in pairs], [p for _, p in pairs]
    present = sorted(set(truth))
    confusion = _confusion(pairs)
    _, recall, f1, _ = metrics.precision_recall_fscore_support(
        truth, called, labels=present, average="macro", zero_division=0
    )
    precision, *_ = metrics.precision_recall_fscore_support(truth, called, labels=present, zero_division=0)
    rows = [confusion.per_class()[k] for k in present]
    assert [row.precision or 0.0 for row in rows] == pytest.approx(precision.tolist())
    assert confusion.macro_recall == pytest.approx(recall)
    assert confusion.macro_f1 == pytest.approx(f1)
    assert (confusion.counts == metrics.confusion_matrix(truth, called, labels=range(K))).all()


@given(PAIRS, PAIRS)
@settings(max_examples=50, deadline=None)
def test_sites_add_up_to_the_pooled_images(first: list[tuple[int, int]], second: list[tuple[int, int]]):
    assert _confusion(first) + _confusion(second) == _confusion(first + second)
    assert _confusion(first) + Confusion.empty(K) == _confusion(first)


def test_a_mean_of_site_scores_is_not_the_score_of_all_images():
    """Why counts travel, not scores."""
    big, small = Confusion([[90, 10], [0, 0]]), Confusion([[0, 1], [1, 0]])
    mean = (big.accuracy + small.accuracy) / 2
    assert (big + small).accuracy == pytest.approx(90 / 102)
    assert mean == pytest.approx(0.45)


def test_per_class_by_hand():
    confusion = Confusion([[3, 1, 0, 0], [2, 4, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    first, second, third, fourth = confusion.per_class()
    assert (first.support, first.predicted) == (4, 6)
    assert first.precision == pytest.approx(3 / 6)
    assert first.recall == pytest.approx(3 / 4)
    assert first.specificity == pytest.approx(4 / 7)
    assert first.f1 == pytest.approx(6 / 10)
    assert second.specificity == pytest.approx(4 / 5)
    assert (third.precision, third.recall, third.f1, third.specificity) == (None, None, None, 1.0)
    assert (fourth.precision, fourth.recall, fourth.f1) == (None, 0.0, 0.0)
    assert confusion.macro_recall == pytest.approx((3 / 4 + 4 / 6 + 0) / 3)
    assert confusion.support.tolist() == [4, 6, 0, 1]
    assert confusion.num_examples == 11


def test_a_one_class_site_has_scores_but_no_specificity():
    confusion = Confusion([[7, 0], [0, 0]])
    assert (confusion.accuracy, confusion.macro_f1) == (1.0, 1.0)
    assert confusion.per_class()[0].specificity is None


def test_lists_survive_the_message():
    confusion = Confusion([[1, 2], [3, 4]])
    assert confusion.to_list() == [1, 2, 3, 4]
    assert all(type(count) is int for count in confusion.to_list())
    assert Confusion.from_list([1, 2, 3, 4], 2) == confusion
    assert hash(Confusion.from_list([1, 2, 3, 4], 2)) == hash(confusion)
    assert repr(confusion) == "Confusion([[1, 2], [3, 4]])"


@pytest.mark.parametrize(
    "counts", [[1, 2, 3], [1, 2, 3, -4], [1.0, 2, 3, 4], [True, False, True, True], [2**63, 0, 0, 0]]
)
def test_lists_that_are_no_matrix_of_counts_are_refused(counts: list[int]):
    with pytest.raises(ValueError):
        Confusion.from_list(counts, 2)


def test_shapes_and_ids_are_checked():
    with pytest.raises(ValueError, match="square"):
        Confusion(np.zeros((2, 3), dtype=np.int64))
    with pytest.raises(ValueError, match="outside"):
        Confusion.from_predictions([0, 2], [0, 0], 2)
    with pytest.raises(ValueError, match="outside"):
        Confusion.from_predictions([0], [-1], 2)
    with pytest.raises(ValueError, match="number"):
        Confusion.from_predictions([0, 1], [0], 2)
    with pytest.raises(ValueError, match="different studies"):
        Confusion.empty(2) + Confusion.empty(3)
    with pytest.raises(ValueError, match="read-only"):
        Confusion.empty(2).counts[0, 0] = 1
