from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from pydantic import ValidationError

from semc.datasets.phantom import PhantomConfig, class_shares, plan_centre

CONFIG = PhantomConfig(patients_per_centre=20, test_patients_per_centre=10, frames_per_patient=4)


def test_patients_hold_several_frames_of_their_planes_in_one_split() -> None:
    frames = plan_centre(CONFIG, "hospital_1")
    assert len(frames) == len(set(frames)) == 30 * 4
    by_patient = defaultdict(list)
    for frame in frames:
        by_patient[frame.patient].append(frame)
    assert Counter(len(of_one) for of_one in by_patient.values()) == {4: 30}
    assert all(len({frame.split for frame in of_one}) == 1 for of_one in by_patient.values())
    assert all(len({frame.plane for frame in of_one}) <= 2 for of_one in by_patient.values())
    assert Counter(frame.split for frame in frames) == {"train": 80, "test": 40}


def test_class_shares_are_met_by_quota_in_both_splits() -> None:
    shares = class_shares(CONFIG, "hospital_2")
    assert shares.sum() == pytest.approx(1)
    for split, slots in (("train", 40), ("test", 20)):
        planes = Counter(frame.plane for frame in plan_centre(CONFIG, "hospital_2") if frame.split == split)
        got = np.array([planes[name] / 2 for name in CONFIG.classes])
        assert np.abs(got - shares * slots).max() < 1


def test_centres_differ_in_their_shares_unless_the_prior_is_off() -> None:
    one, other = (class_shares(CONFIG, f"hospital_{number}") for number in (1, 2))
    assert np.abs(one - other).max() > 0.02
    flat = CONFIG.model_copy(update={"class_prior": None})
    np.testing.assert_allclose(class_shares(flat, "hospital_1"), 1 / 6)
    wild = [class_shares(CONFIG.model_copy(update={"class_prior": 0.1}), f"h{n}").max() for n in range(9)]
    calm = [class_shares(CONFIG.model_copy(update={"class_prior": 100.0}), f"h{n}").max() for n in range(9)]
    assert np.mean(wild) > np.mean(calm) + 0.2


def test_label_shift_and_style_shift_switch_separately() -> None:
    other = CONFIG.model_copy(update={"severity": 0.9})
    assert plan_centre(CONFIG, "hospital_1") == plan_centre(other, "hospital_1")


@pytest.mark.parametrize(
    "settings",
    [
        {"classes": ("head", "spine")},
        {"classes": ("head", "head")},
        {"classes": ("head",)},
        {"centre_names": ("a", "a")},
        {"centre_names": ("reserved",)},
        {"centre_names": ("../up",)},
        {"severity": 1.5},
        {"unknown": 1},
    ],
)
def test_impossible_cohorts_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PhantomConfig.model_validate(settings)
