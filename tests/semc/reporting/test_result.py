"""The content of result.json: strict, immutable, counts only."""

import pytest
from pydantic import ValidationError

from semc.exit_codes import ExitCode
from semc.metrics import Confusion
from semc.reporting import StudyResult
from tests.semc.reporting.study_result import SITES, counts, study_result


def test_json_round_trip():
    result = study_result()
    assert StudyResult.model_validate_json(result.model_dump_json()) == result


@pytest.mark.parametrize(
    "change",
    [
        {"privacy": "differential"},
        {"unknown": 1},
        {"seconds": float("nan")},
        {"seconds": -1},
        {"outcome": "fine"},
        {"classes": ["head"]},
        {"classes": ["head", "abdomen"]},
    ],
)
def test_what_is_not_a_result_is_refused(change: dict[str, object]):
    content = study_result().model_dump() | change
    with pytest.raises(ValidationError):
        StudyResult.model_validate(content)


def test_counts_of_another_study_are_refused_in_sites_too():
    content = study_result().model_dump()
    content["rounds"] = []
    content["sites"][0]["local_only_confusion"] = [1, 2, 3, 4]
    with pytest.raises(ValidationError, match="number of classes"):
        StudyResult.model_validate(content)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        ("complete", ExitCode.OK),
        ("complete_on_subset", ExitCode.COMPLETE_ON_SUBSET),
        ("quorum_lost", ExitCode.QUORUM_LOST),
        ("failed", ExitCode.RUN_FAILED),
    ],
)
def test_each_outcome_has_its_exit_code(outcome: str, code: ExitCode):
    assert study_result().model_copy(update={"outcome": outcome}).exit_code() is code


def test_additions_make_copies():
    result = study_result(alone=None)
    alone = result.with_local_only({"south": Confusion.from_list(counts(7, 1), 3)})
    assert [site.local_only_confusion for site in alone.sites] == [None, counts(7, 1), None]
    assert all(site.local_only_confusion is None for site in result.sites)
    pictured = alone.with_sample_images({"north": ["aGk="]}).with_seconds(3.0)
    assert [site.sample_images for site in pictured.sites] == [["aGk="], [], []]
    assert (pictured.seconds, result.seconds) == (3.0, 61.4)
    assert [site.site for site in pictured.sites] == SITES


def test_counts_become_matrices():
    result = study_result()
    assert result.confusion(None) is None
    assert result.confusion(counts(3, 1)) == Confusion([[3, 1, 0], [0, 3, 1], [1, 0, 3]])
