from __future__ import annotations

import numpy as np
import pytest

from semc.datasets.phantom import PLANES, PhantomConfig, PhantomFrame, plan_centre, render_frame, style_of

SMALL = PhantomConfig(image_size=48, patients_per_centre=6, test_patients_per_centre=2, frames_per_patient=4)


def frame(
    plane: str, number: int = 0, patient: str = "hospital_1-p0000", centre: str = "hospital_1"
) -> PhantomFrame:
    return PhantomFrame(centre, patient, plane, number, "train")


def test_every_plane_is_an_image_of_its_own() -> None:
    images = [render_frame(SMALL, frame(plane)) for plane in PLANES]
    assert all(image.shape == (48, 48) and image.dtype == np.uint8 for image in images)
    assert all(30 < image[image > 0].mean() < 220 for image in images)
    assert len({image.tobytes() for image in images}) == len(PLANES)


def test_a_frame_is_a_function_of_its_place_in_any_order() -> None:
    frames = plan_centre(SMALL, "hospital_2")
    forward = {one: render_frame(SMALL, one) for one in frames}
    for one in reversed(frames):
        np.testing.assert_array_equal(render_frame(SMALL, one), forward[one])


def test_frames_of_a_patient_share_anatomy_not_speckle() -> None:
    def coarse(image: np.ndarray) -> np.ndarray:
        return image.reshape(8, 6, 8, 6).mean(axis=(1, 3)).ravel()

    same, other = [], []
    for patient in range(12):
        first, second = (render_frame(SMALL, frame("abdomen", n, f"p{patient}")) for n in (0, 1))
        stranger = render_frame(SMALL, frame("abdomen", 0, f"q{patient}"))
        assert not np.array_equal(first, second)
        same.append(np.corrcoef(coarse(first), coarse(second))[0, 1])
        other.append(np.corrcoef(coarse(first), coarse(stranger))[0, 1])
    assert np.mean(same) > np.mean(other) + 0.005


def test_the_class_prior_leaves_styles_and_pixels_alone() -> None:
    other = SMALL.model_copy(update={"class_prior": 0.3})
    assert style_of(SMALL, "hospital_1") == style_of(other, "hospital_1")
    shared = set(plan_centre(SMALL, "hospital_1")) & set(plan_centre(other, "hospital_1"))
    assert shared
    for one in shared:
        np.testing.assert_array_equal(render_frame(SMALL, one), render_frame(other, one))


def test_the_seed_changes_everything() -> None:
    other = SMALL.model_copy(update={"seed": 1})
    assert not np.array_equal(render_frame(SMALL, frame("head")), render_frame(other, frame("head")))


@pytest.mark.parametrize("severity", [0.0, 0.5, 0.8, 1.0])
def test_every_geometry_and_export_size_renders(severity: float) -> None:
    for index, name in enumerate(("a", "b", "c")):
        config = SMALL.model_copy(update={"severity": severity, "centre_names": ("a", "b", "c")})
        image = render_frame(config, frame("head", centre=name))
        assert image.shape == (48, round(48 * style_of(config, name).aspect)), index
        assert (image > 0).mean() > 0.4


def test_overlays_are_burnt_in_at_one_place_per_centre() -> None:
    config = SMALL.model_copy(update={"severity": 0.3})
    for name in config.all_centres():
        first, second = (render_frame(config, frame("head", n, centre=name))[:6, :20] for n in (0, 5))
        drawn = style_of(config, name).overlay != "none"
        assert bool(first.max() == 235) is drawn
        np.testing.assert_array_equal(first == 235, second == 235)


def test_the_class_marker_is_reversed_in_the_reserved_centre() -> None:
    config = SMALL.model_copy(update={"overlay_leaks_class": True, "reserved_centre": True, "severity": 0.0})

    def marker(centre: str, plane: str) -> float:
        band = render_frame(config, frame(plane, centre=centre))[44:46]
        return float(np.argwhere(band.min(axis=0) >= 235).mean())

    assert marker("hospital_1", PLANES[0]) < 8
    assert marker("hospital_1", PLANES[-1]) > 40
    assert marker("reserved", PLANES[0]) > 40


GOLDEN = {
    "head": [
        15.7,
        96.1,
        95.4,
        4.4,
        101.6,
        112.3,
        78.7,
        60.4,
        113.9,
        96.4,
        102.3,
        104.0,
        27.5,
        62.0,
        64.3,
        38.4,
    ],
    "femur": [
        15.3,
        92.1,
        93.3,
        3.9,
        98.9,
        141.0,
        138.1,
        94.7,
        122.4,
        111.3,
        130.7,
        149.1,
        41.4,
        73.9,
        78.3,
        54.2,
    ],
    "other": [
        15.4,
        94.1,
        92.5,
        4.1,
        98.4,
        134.7,
        136.8,
        92.5,
        139.6,
        122.9,
        129.7,
        152.5,
        47.4,
        74.3,
        75.6,
        52.0,
    ],
}


@pytest.mark.parametrize("plane", sorted(GOLDEN))
def test_block_means_stay_what_they_were(plane: str) -> None:
    """Means of 16x16 blocks, one grey level of tolerance; seed 0, made by `render_frame` itself."""
    image = render_frame(PhantomConfig(image_size=64, severity=0.3), frame(plane))
    blocks = image.reshape(4, 16, 4, 16).mean(axis=(1, 3))
    np.testing.assert_allclose(blocks, np.array(GOLDEN[plane]).reshape(4, 4), atol=1.0)
