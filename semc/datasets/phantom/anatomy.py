"""Patient anatomy: the standard planes, and the near misses and structures that make up `other`.

Each drawing takes a generator seeded by the patient, so all frames of a patient show one anatomy. A plane
drawn with ``landmarks=False`` keeps the outline and loses what defines the standard view: the near miss.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from semc.datasets.phantom.canvas import Canvas

VOID = -34.0
"""Echo of fluid, dB."""
BONE = 17.0
"""Echo of bone, dB."""
_CENTRE_Z = 0.52


def draw_background(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint soft tissue, the fat layer and its fascia: the patient's habitus, the same in every plane."""
    waves = np.stack([rng.normal(0, 9, 4), rng.normal(0, 9, 4), rng.uniform(0, 2 * np.pi, 4)], axis=1)
    canvas.texture(waves, depth=rng.uniform(0.6, 1.4))
    fat = rng.uniform(0.05, 0.16)
    canvas.echo_DB += np.float32(rng.uniform(-4, 3)) * (canvas.z_DB < fat)
    canvas.band(fat, 0.008, rng.uniform(4, 9))
    for _ in range(int(rng.integers(0, 3))):
        _vessel(canvas, rng)


def draw_head(canvas: Canvas, rng: np.random.Generator, landmarks: bool) -> None:
    """Skull ring with midline and cavum septi pellucidi; without landmarks: an empty or split skull."""
    x, z, tilt = _place(rng)
    width, height = rng.uniform(0.26, 0.34), rng.uniform(0.20, 0.26)
    outline = canvas.radius(x, z, width, height, tilt)
    canvas.fill(outline, rng.uniform(-11, -6))
    canvas.ring(outline, rng.uniform(BONE - 4, BONE), width=rng.uniform(0.05, 0.08), absorption=1.2)
    side = -1.0 if rng.random() < 0.5 else 1.0
    ahead_x, ahead_z = x + side * 0.5 * width * np.cos(tilt), z + side * 0.5 * width * np.sin(tilt)
    if landmarks:
        canvas.bar(x, z, 0.85 * width, 0.008, tilt, rng.uniform(4, 9))
        canvas.fill(canvas.radius(ahead_x, ahead_z, 0.055, 0.028, tilt), VOID, edge=0.3)
        for across in (-0.28, 0.28):
            thalamus_x = x - across * height * np.sin(tilt)
            canvas.fill(canvas.radius(thalamus_x, z + across * height, 0.075, 0.04, tilt), -15, edge=0.4)
    else:
        lobes = canvas.radius(x - side * 0.35 * width, z, 0.09, 0.11, tilt)
        canvas.fill(lobes, rng.uniform(-18, 2), edge=0.3)
        canvas.ring(lobes, rng.uniform(-2, 6), width=0.15)


def draw_abdomen(canvas: Canvas, rng: np.random.Generator, landmarks: bool) -> None:
    """Round section with stomach, umbilical vein and spine; without landmarks: kidneys instead."""
    x, z, tilt = _place(rng)
    size, flat = rng.uniform(0.26, 0.33), rng.uniform(0.85, 1.0)
    outline = canvas.radius(x, z, size, size * flat, tilt)
    canvas.fill(outline, rng.uniform(-4, 1))
    canvas.ring(outline, rng.uniform(7, 12), width=0.05, absorption=0.2)
    side = -1.0 if rng.random() < 0.5 else 1.0
    spine_x = x - side * 0.72 * size
    for offset in (-0.045, 0.0, 0.045):
        canvas.fill(canvas.radius(spine_x, z + offset, 0.022, 0.016, 0), BONE - 2, edge=0.6, absorption=1.5)
    if landmarks:
        stomach = canvas.radius(x + side * 0.1 * size, z + 0.45 * size, 0.085, 0.055, rng.uniform(-0.6, 0.6))
        canvas.fill(stomach, VOID, absorption=-0.4)
        canvas.bar(
            x + side * 0.3 * size, z - 0.15 * size, 0.09, 0.018, rng.uniform(0.2, 0.7) * side, VOID + 6
        )
    else:
        for across in (-0.42, 0.42):
            kidney = canvas.radius(
                x - side * 0.3 * size, z + across * size, 0.075, 0.048, rng.uniform(-0.4, 0.4)
            )
            canvas.fill(kidney, -12, edge=0.25)
            canvas.fill(kidney * np.float32(2.4), 3, edge=0.6)


def draw_femur(canvas: Canvas, rng: np.random.Generator, landmarks: bool) -> None:
    """One bright shaft with its shadow in a thigh; without landmarks: two short shafts, no clean shadow."""
    x, z, tilt = _place(rng)
    tilt += rng.uniform(-0.25, 0.25)
    canvas.fill(canvas.radius(x, z, 0.36, 0.17, tilt), rng.uniform(-8, -3), edge=0.2)
    length, thickness = rng.uniform(0.17, 0.25), rng.uniform(0.012, 0.018)
    if landmarks:
        canvas.bar(x, z, length, thickness, tilt, BONE, absorption=2.4)
        for end in (-1, 1):
            end_x, end_z = x + end * length * np.cos(tilt), z + end * length * np.sin(tilt)
            canvas.fill(canvas.radius(end_x, end_z, 0.035, 0.028, tilt), -14, edge=0.5)
    else:
        gap, part = rng.uniform(0.035, 0.06), rng.uniform(0.5, 0.8)
        canvas.bar(x - 0.03, z - gap, length * part, thickness, tilt, BONE - 4, absorption=0.9)
        canvas.bar(x + 0.04, z + gap, length * part, thickness, tilt + 0.12, BONE - 5, absorption=0.9)


def draw_four_chamber(canvas: Canvas, rng: np.random.Generator, landmarks: bool) -> None:
    """Chest with four chambers about a cross; without landmarks: outflow tract or three vessels."""
    x, z, tilt = _place(rng)
    size = rng.uniform(0.28, 0.34)
    chest = canvas.radius(x, z, size, size * 0.9, tilt)
    canvas.fill(chest, rng.uniform(-3, 2))
    canvas.ring(chest, rng.uniform(8, 12), width=0.05, absorption=0.4)
    apex = tilt + rng.uniform(-0.6, 0.6)
    heart_x, heart_z = x + rng.uniform(-0.05, 0.05), z + rng.uniform(-0.03, 0.04)
    canvas.fill(canvas.radius(heart_x, heart_z, 0.18, 0.145, apex), rng.uniform(0, 4))
    if landmarks:
        for along, across, wide, high in (
            (0.08, 0.06, 0.07, 0.042),
            (0.08, -0.06, 0.07, 0.042),
            (-0.075, 0.055, 0.05, 0.042),
            (-0.075, -0.055, 0.05, 0.042),
        ):
            place_x = heart_x + along * np.cos(apex) - across * np.sin(apex)
            place_z = heart_z + along * np.sin(apex) + across * np.cos(apex)
            canvas.fill(canvas.radius(place_x, place_z, wide, high, apex), VOID, edge=0.3, absorption=-0.2)
    else:
        count = int(rng.integers(2, 4))
        for number in range(count):
            along = (number - (count - 1) / 2) * 0.1
            place_x, place_z = heart_x + along * np.cos(apex), heart_z + along * np.sin(apex)
            radius = rng.uniform(0.03, 0.045)
            canvas.fill(canvas.radius(place_x, place_z, radius, radius, 0), VOID, edge=0.3)
        canvas.bar(heart_x, heart_z + 0.1, 0.12, 0.016, apex + 0.4, VOID + 4)


def draw_liver(canvas: Canvas, rng: np.random.Generator, landmarks: bool) -> None:
    """Even parenchyma under the diaphragm with gallbladder and portal branch; without: kidney and bowel."""
    x, z, tilt = _place(rng)
    canvas.fill(canvas.radius(x, z, 0.42, 0.27, tilt * 0.5), rng.uniform(-1, 3), edge=0.15)
    dome = canvas.radius(x, z - 0.1, 0.5, 0.42, tilt * 0.3)
    canvas.ring(dome, rng.uniform(10, 14), width=0.03, absorption=0.5)
    side = -1.0 if rng.random() < 0.5 else 1.0
    if landmarks:
        gallbladder = canvas.radius(x + side * 0.14, z + 0.08, 0.05, 0.095, side * rng.uniform(0.2, 0.7))
        canvas.ring(gallbladder, 6, width=0.2)
        canvas.fill(gallbladder, VOID, absorption=-0.5)
        canvas.bar(x - side * 0.1, z - 0.04, 0.12, 0.012, rng.uniform(-0.5, 0.5), VOID + 10)
        canvas.bar(x - side * 0.1, z - 0.062, 0.12, 0.008, rng.uniform(-0.5, 0.5), 6)
    else:
        kidney = canvas.radius(x + side * 0.12, z + 0.07, 0.12, 0.065, side * rng.uniform(0.1, 0.6))
        canvas.fill(kidney, -10, edge=0.2)
        canvas.fill(kidney * np.float32(2.2), 4, edge=0.5)
        canvas.ring(canvas.radius(x - side * 0.16, z + 0.02, 0.05, 0.04, 0), 6, width=0.25, absorption=0.6)


def draw_structures(canvas: Canvas, rng: np.random.Generator) -> None:
    """Plain `other`: off-plane ellipses, partial rings, lines and vessels, no standard outline."""
    for _ in range(int(rng.integers(2, 5))):
        x, z, tilt = rng.uniform(-0.25, 0.25), rng.uniform(0.3, 0.75), rng.uniform(-1.5, 1.5)
        outline = canvas.radius(x, z, rng.uniform(0.06, 0.22), rng.uniform(0.04, 0.15), tilt)
        choice = rng.random()
        if choice < 0.45:
            canvas.fill(outline, rng.uniform(-22, 5), edge=0.3)
        elif choice < 0.8:
            opening = (x + rng.uniform(-0.1, 0.1), rng.uniform(0.03, 0.1))
            canvas.ring(outline, rng.uniform(5, 14), width=0.1, absorption=0.5, opening=opening)
        else:
            canvas.bar(x, z, rng.uniform(0.05, 0.15), 0.012, tilt, rng.uniform(6, 14), absorption=0.8)
    _vessel(canvas, rng)


def draw_other(canvas: Canvas, rng: np.random.Generator, near_miss: float) -> None:
    """Paint an `other` frame: with probability `near_miss` a standard outline without its landmarks."""
    kind = int(rng.integers(len(_STANDARD)))
    if rng.random() < near_miss:
        tuple(_STANDARD.values())[kind](canvas, rng, False)
    else:
        draw_structures(canvas, rng)


def draw_plane(canvas: Canvas, plane: str, rng: np.random.Generator, near_miss: float) -> None:
    """Paint the anatomy of `plane`, one of PLANES, as the patient behind `rng` has it."""
    if plane == OTHER:
        draw_other(canvas, rng, near_miss)
    else:
        _STANDARD[plane](canvas, rng, True)


def _place(rng: np.random.Generator) -> tuple[float, float, float]:
    """Return the patient's organ position (x, z) and tilt, rad."""
    return rng.uniform(-0.07, 0.07), _CENTRE_Z + rng.uniform(-0.06, 0.06), rng.uniform(-0.5, 0.5)


def _vessel(canvas: Canvas, rng: np.random.Generator) -> None:
    place = rng.uniform(-0.35, 0.35), rng.uniform(0.2, 0.85)
    canvas.bar(*place, rng.uniform(0.04, 0.12), rng.uniform(0.008, 0.02), rng.uniform(-1.5, 1.5), VOID + 8)


OTHER = "other"
_STANDARD: dict[str, Callable[[Canvas, np.random.Generator, bool], None]] = {
    "head": draw_head,
    "abdomen": draw_abdomen,
    "femur": draw_femur,
    "four_chamber": draw_four_chamber,
    "liver": draw_liver,
}
PLANES = (*_STANDARD, OTHER)
"""Names of all planes the phantom can draw."""
