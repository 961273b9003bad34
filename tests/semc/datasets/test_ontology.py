from __future__ import annotations

import pytest

from semc.datasets.ontology import Ontology
from semc.exit_codes import ExitCode, SemcError


def test_a_missing_class_shifts_no_index() -> None:
    ontology = Ontology(("head", "abdomen", "femur"))
    assert ontology.num_classes == 3
    assert [ontology.label_of(name, 2) for name in ("femur", "head")] == [2, 0]


def test_the_sites_names_are_mapped_and_ignored() -> None:
    ontology = Ontology(("head", "femur"), {"FL": "femur"}, ("blank",))
    assert ontology.label_of("FL", 2) == 1
    assert ontology.label_of("head", 3) == 0
    assert ontology.label_of("blank", 4) is None


def test_an_unknown_name_is_refused_by_row_without_repeating_the_cell() -> None:
    with pytest.raises(SemcError) as caught:
        Ontology(("head",)).label_of("Jane Doe 1961", 7)
    assert caught.value.code is ExitCode.LABEL_UNKNOWN
    assert "Row 7" in str(caught.value)
    assert "Jane" not in str(caught.value)


def test_case_must_match_and_the_message_says_so() -> None:
    with pytest.raises(SemcError, match="upper and lower case"):
        Ontology(("head",)).label_of("Head", 2)


def test_a_map_must_lead_to_a_class_of_the_study() -> None:
    with pytest.raises(SemcError) as caught:
        Ontology(("head",), {"FL": "femur"})
    assert caught.value.code is ExitCode.LABEL_UNKNOWN
