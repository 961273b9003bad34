"""Nothing about the patients of a suppressed class can be worked out, whatever else an attacker knows.

The attacker of these tests knows every other image, its patient and its answer, and tries every content that the
suppressed class could have had. The naive rule, one hidden recall beside scores over all classes, is the control.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semc.config import DisclosureConfig
from semc.metrics import Confusion
from semc.privacy.disclosure import DisclosedScores, disclose

CELL = 5
RULES = DisclosureConfig(min_cell=CELL, min_evaluation_patients=10)
K = 3
Told = tuple[float | None, ...] | None


@dataclass(frozen=True)
class Class:
    """One image of each patient: what the images of one class were called."""

    label: int
    called: tuple[int, ...]


def _rules_of_the_site(classes: list[Class]) -> Told:
    """What leaves under the rules."""
    labels = [item.label for item in classes for _ in item.called]
    called = [answer for item in classes for answer in item.called]
    scores = disclose(labels, called, [f"p{n}" for n in range(len(labels))], K, RULES)
    return None if scores is None else (*_overall(scores), *scores.recall)


def _naive(classes: list[Class], *, num_hidden: int = 1) -> Told:
    """One recall per class with the rarest hidden, beside scores over ALL classes: what the rules must not be."""
    labels = [item.label for item in classes for _ in item.called]
    called = [answer for item in classes for answer in item.called]
    confusion = Confusion.from_predictions(labels, called, K)
    hidden = set(sorted(range(K), key=lambda k: int(confusion.support[k]))[:num_hidden])
    recalls = (None if row.index in hidden else round(row.recall or 0.0, 2) for row in confusion.per_class())
    overall = (confusion.accuracy, confusion.balanced_accuracy, confusion.macro_f1)
    return (*(round(score or 0.0, 2) for score in overall), *recalls)


def _overall(scores: DisclosedScores) -> tuple[float, float, float]:
    return scores.accuracy, scores.balanced_accuracy, scores.macro_f1


def _contents(label: int) -> Iterator[Class]:
    """Every content of a class that is suppressed: 0 to CELL - 1 patients, called anything."""
    for patients in range(CELL):
        for called in combinations_with_replacement(range(K), patients):
            yield Class(label, called)


def _recalls_left_open(
    known: list[Class], secret: Class, told: Callable[[list[Class]], Told]
) -> set[float | None]:
    """Return every recall of the secret class that agrees with what was told; one = it is known."""
    output = told([*known, secret])
    return {
        item.called.count(item.label) / len(item.called) if item.called else None
        for item in _contents(secret.label)
        if told([*known, item]) == output
    }


answers = st.integers(0, K - 1)
known_classes = st.tuples(
    st.lists(answers, min_size=CELL, max_size=14), st.lists(answers, min_size=CELL, max_size=14)
).map(lambda pair: [Class(0, tuple(pair[0])), Class(1, tuple(pair[1]))])
secrets = st.lists(answers, max_size=CELL - 1).map(lambda called: Class(2, tuple(called)))


@settings(max_examples=60, deadline=None)
@given(known_classes, secrets)
def test_every_content_of_a_suppressed_class_gives_the_same_output(known: list[Class], secret: Class) -> None:
    everything = {
        item.called.count(item.label) / len(item.called) if item.called else None
        for item in _contents(secret.label)
    }
    assert _recalls_left_open(known, secret, _rules_of_the_site) == everything


def test_without_that_rule_one_hidden_recall_is_solved_for() -> None:
    known = [Class(0, (0,) * 9 + (1,)), Class(1, (1,) * 8 + (0, 0))]
    secret = Class(2, (2, 2, 0))
    assert _recalls_left_open(known, secret, _naive) == {2 / 3}
    assert len(_recalls_left_open(known, secret, _rules_of_the_site)) > 3


def test_hiding_a_second_class_would_not_be_enough() -> None:
    """Balanced accuracy 1 tells both hidden recalls; why the scores must leave out what is hidden."""
    known = [Class(0, (0,) * 10), Class(1, (1,) * 6)]
    told = _naive([*known, Class(2, (2, 2, 2))], num_hidden=2)
    assert told is not None
    assert told[3:].count(None) == 2
    open_to_naive = {
        (rare.called.count(2) / len(rare.called), other.count(1) / 6)
        for rare in _contents(2)
        if rare.called
        for other in combinations_with_replacement(range(K), 6)
        if _naive([known[0], Class(1, other), rare], num_hidden=2) == told
    }
    assert open_to_naive == {(1.0, 1.0)}


@pytest.mark.parametrize(("patients", "shown"), [(9, False), (10, True)])
def test_a_cell_of_nine_is_suppressed_and_of_ten_is_not(patients: int, shown: bool) -> None:
    labels = [0] * 15 + [1] * 15 + [2] * patients
    owners = [f"p{n}" for n in range(len(labels))]
    scores = disclose(labels, labels, owners, 4, DisclosureConfig())
    assert scores is not None
    assert scores.recall == (1.0, 1.0, 1.0 if shown else None, None), (
        "a class nobody has looks like a rare one"
    )


@pytest.mark.parametrize(("patients", "told"), [(19, False), (20, True)])
def test_too_few_patients_tell_nothing(patients: int, told: bool) -> None:
    labels = [0] * patients + [1] * patients  # every patient has an image of both classes
    owners = [f"p{n}" for n in range(patients)] * 2
    assert (disclose(labels, labels, owners, 2, DisclosureConfig()) is not None) is told


def test_patients_of_suppressed_classes_do_not_make_up_the_number() -> None:
    labels = [0] * 6 + [1] * 3 + [2] * 6  # 15 patients, 12 of them in shown classes
    owners = [f"p{n}" for n in range(len(labels))]
    enough = DisclosureConfig(min_cell=5, min_evaluation_patients=12)
    assert disclose(labels, labels, owners, 3, enough) is not None
    assert (
        disclose(labels, labels, owners, 3, enough.model_copy(update={"min_evaluation_patients": 13})) is None
    )


def test_one_shown_class_is_no_score() -> None:
    assert disclose([0] * 30, [0] * 30, list(range(30)), 2, DisclosureConfig()) is None


def test_no_images_tell_nothing() -> None:
    assert disclose([], [], [], 3, RULES) is None


def test_a_patient_counts_once_however_many_frames() -> None:
    """Nine patients right with one frame each, one wrong with 91: by frames the recall would be 0.09."""
    labels = [0] * 100 + [1] * 10
    called = [0] * 9 + [1] * 91 + [1] * 10
    owners = [f"a{n}" for n in range(9)] + ["many"] * 91 + [f"b{n}" for n in range(10)]
    scores = disclose(labels, called, owners, 2, DisclosureConfig())
    assert scores == DisclosedScores(
        accuracy=0.95,
        balanced_accuracy=0.95,
        macro_f1=0.95,
        recall=(0.9, 1.0),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(answers, answers), min_size=60, max_size=90))
def test_with_every_class_shown_it_is_the_plain_confusion_rounded(pairs: list[tuple[int, int]]) -> None:
    pairs = pairs + [(k, k) for k in range(K)] * CELL
    labels, called = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    scores = disclose(labels, called, list(range(len(pairs))), K, RULES)
    confusion = Confusion.from_predictions(labels, called, K)
    assert scores is not None
    overall = (confusion.accuracy, confusion.balanced_accuracy, confusion.macro_f1)
    plain = (*overall, *(row.recall for row in confusion.per_class()))
    assert (*_overall(scores), *scores.recall) == pytest.approx(plain, abs=0.0051)


def test_rates_have_two_decimals_and_there_are_no_counts() -> None:
    labels = [0, 1] * 17
    scores = disclose(labels, [0] * 34, list(range(34)), 2, DisclosureConfig())
    assert scores is not None
    assert set(vars(scores)) == {"accuracy", "balanced_accuracy", "macro_f1", "recall"}
    values = [*_overall(scores), *(rate for rate in scores.recall if rate is not None)]
    assert all(value == round(value, 2) for value in values)


@pytest.mark.parametrize(
    ("labels", "called", "patients"),
    [([0], [0, 1], ["a"]), ([3], [0], ["a"]), ([0], [-1], ["a"]), ([0], [0], [])],
)
def test_lists_that_do_not_fit_are_refused(labels: list[int], called: list[int], patients: list[str]) -> None:
    with pytest.raises(ValueError):
        disclose(labels, called, patients, K, RULES)
