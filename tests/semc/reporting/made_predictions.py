"""Predictions with a known structure: each arm right with a set probability at each site, patient by patient."""

from collections.abc import Mapping, Sequence

import numpy as np

from semc.reporting.predictions import Predictions, Protocol

CLASSES = ("head", "abdomen", "femur")
SITES = ("north", "south", "west")
SKILL = {"local": 0.55, "fedavg": 0.75, "silo": 0.85, "pooled": 0.9}
PENALTY = {"north": 0.0, "south": 0.05, "west": 0.25}


def made(
    skill: float,
    *,
    arm: str = "fedavg",
    seed: int = 0,
    site: str = "north",
    model_site: str = "",
    patients: int = 30,
    frames: int = 4,
    protocol: Protocol = "per_site",
    condition: str = "",
    clustered: float = 0.0,
) -> Predictions:
    """Return answers that are right with probability `skill`; `clustered` is the share decided once a patient.

    Patients and labels depend on the site alone, so records of one site are always of the same images.
    """
    images = np.random.default_rng([len(site), ord(site[0])])
    patients_B = np.repeat(np.arange(patients), frames)
    labels_B = images.integers(0, len(CLASSES), patients * frames)
    rng = np.random.default_rng([seed, *map(ord, arm + condition + model_site + site)])
    by_patient_B = np.repeat(rng.random(patients), frames)
    draw_B = np.where(rng.random(len(labels_B)) < clustered, by_patient_B, rng.random(len(labels_B)))
    right_B = draw_B < skill
    wrong_B = (labels_B + rng.integers(1, len(CLASSES), len(labels_B))) % len(CLASSES)
    called_B = np.where(right_B, labels_B, wrong_B)
    confidence_B = rng.uniform(0.4, 0.95, len(labels_B)).astype(np.float32)
    probabilities_BK = np.repeat((1 - confidence_B)[:, None] / (len(CLASSES) - 1), len(CLASSES), axis=1)
    probabilities_BK[np.arange(len(labels_B)), called_B] = confidence_B
    return Predictions(
        arm=arm,
        seed=seed,
        model_site=model_site,
        test_site=site,
        patients=tuple(patients_B.tolist()),
        labels=tuple(labels_B.tolist()),
        probabilities_BK=probabilities_BK.astype(np.float32),
        protocol=protocol,
        condition=condition,
    )


def compared(
    skill: Mapping[str, float] = SKILL,
    seeds: Sequence[int] = (0, 1),
    sites: Sequence[str] = SITES,
    **changes: int,
) -> list[Predictions]:
    """Return every arm, seed and site; west is the worst site of every arm."""
    return [
        made(
            share - PENALTY[site],
            arm=arm,
            seed=seed,
            site=site,
            model_site="" if arm in ("fedavg", "pooled") else site,
            **changes,
        )
        for arm, share in skill.items()
        for seed in seeds
        for site in sites
    ]


def crossed(arm: str = "local", seeds: Sequence[int] = (0, 1), skill: float = 0.4) -> list[Predictions]:
    """Return every site's model on every other site's images."""
    return [
        made(skill, arm=arm, seed=seed, site=site, model_site=model_site, protocol="cross_site")
        for seed in seeds
        for model_site in SITES
        for site in SITES
        if site != model_site
    ]


LEFT_OUT = {"none": 0.5, "bn_16": 0.52, "bn_64": 0.7, "local": 0.6, "pooled": 0.85}


def left_out(arm: str = "fedavg", seeds: Sequence[int] = (0, 1)) -> list[Predictions]:
    """Return every condition at every left-out centre."""
    return [
        made(share, arm=arm, seed=seed, site=site, protocol="loco", condition=condition)
        for condition, share in LEFT_OUT.items()
        for seed in seeds
        for site in SITES
    ]
