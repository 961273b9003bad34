"""`semc-sim loco`: leave-one-centre-out. What does a federation offer a hospital that took no part in it?

Each centre is left out in turn. The federation of the others meets it (a) as it is, with the mean of the training
sites' batch-norm statistics, (b) with statistics re-estimated as `semc-client adopt` does, from n unlabelled images for
every n that all left-out centres can give and from all images of each (`bn_all`), (c) after that and a short
fine-tuning of the classifiers on a tenth of its labelled patients. Beside them stand (d) the centre alone with all its
labels and (e) all centres' images in one place, both with the arm's own loss and network.

Arms that share their statistics blend (b) with the federation's (N0 = 32 images); where statistics never travel there
is nothing to blend with, and the mean of (a) exists in a simulation only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from semc.config import StudyConfig
from semc.exit_codes import ExitCode, SemcError
from semc.reporting.predictions import Predictions
from simulation.arm_run import ArmRun
from simulation.arms import Arm, parse_arm
from simulation.compare import Laboratory, arm_tasks, write_laboratory
from simulation.laboratory_data import describe_sites
from simulation.left_out import FEWEST_IMAGES, leave_out
from simulation.loco_remarks import remarks_on_left_out
from simulation.tasks import Task, data_digest

DEFAULT_IMAGES = (16, 64, 256)


def loco(
    laboratory: Laboratory,
    arm_name: str,
    *,
    centres: Sequence[str] = (),
    images: Sequence[int] = DEFAULT_IMAGES,
) -> Path:
    """Run every left-out centre with every seed, and the two yardsticks, and write tables and report.

    Args:
        laboratory: Study, sites, seeds; finished arms `local` and `pooled` of a comparison in the same folder serve.
        arm_name: The federated arm.
        centres: Centres to leave out; none = each in turn.
        images: Numbers of unlabelled images for the statistics.

    Returns:
        The report.

    Raises:
        SemcError: USAGE before anything is trained; later whatever a run refuses.
    """
    arm = parse_arm(arm_name)
    names = laboratory.study.federation.sites
    if arm.kind != "federated":
        raise SemcError(
            ExitCode.USAGE, f"'{arm.name}' is no federation.", "--arm silo, or another federated arm"
        )
    if len(names) < 3:
        raise SemcError(ExitCode.USAGE, "One of two sites cannot be left out.", "make three sites or more")
    if min(images, default=FEWEST_IMAGES) < FEWEST_IMAGES:
        raise SemcError(
            ExitCode.USAGE, "Statistics of a single image are none.", f"--images {FEWEST_IMAGES} or more"
        )
    for centre in centres:
        if centre not in names:
            raise SemcError(
                ExitCode.USAGE, f"There is no site '{centre}'.", f"--centres any of {','.join(names)}"
            )
    if arm.study(laboratory.study, 0).federation.bn == "fedbn":
        raise SemcError(
            ExitCode.USAGE,
            "Under fedbn gamma and beta stay at the sites, so a new centre has none.",
            "--arm silo, or another that shares them",
        )
    chosen = tuple(centres or names)
    usable, note = _common_numbers(laboratory, chosen, images)
    if note:
        laboratory.console.print(note, highlight=False)
    digest = data_digest(laboratory.sites, names)
    tasks = [
        _task(laboratory, arm, centre, seed, usable, digest) for seed in laboratory.seeds for centre in chosen
    ]
    yardsticks = arm_tasks(laboratory, [arm.yardstick("local"), arm.yardstick("pooled")], cross_site=True)
    runs = laboratory.run([*yardsticks, *tasks])
    records = [_as_condition(run, set(chosen)) for run in runs[: len(yardsticks)]] + runs[len(yardsticks) :]
    question = f"What does the federation ({arm.name}) offer a centre that took no part in it?"
    return write_laboratory(
        laboratory,
        records,
        laboratory.out / "loco" / arm.name,
        [arm],
        question,
        arm.name,
        (note,) if note else (),
        remarks_on_left_out(arm.study(laboratory.study, 0), laboratory.sites, chosen, laboratory.seeds),
    )


def _common_numbers(
    laboratory: Laboratory, centres: Sequence[str], wanted: Sequence[int]
) -> tuple[tuple[int, ...], str]:
    """Return the numbers of images that every left-out centre has more than, and a word on the others.

    A mean over centres is only worth comparing where it is over the same ones.

    Raises:
        SemcError: USAGE where a centre has no test image.
    """
    counts = describe_sites(laboratory.study, laboratory.sites).counts
    for centre in centres:
        if counts[centre].num_test_images == 0:
            raise SemcError(
                ExitCode.USAGE,
                f"Site '{centre}' has no test image to be scored on.",
                "leave it out with --centres, or make sites with a test fraction",
            )
    fewest = min(centres, key=lambda centre: counts[centre].num_train_images)
    limit = counts[fewest].num_train_images
    dropped = sorted(number for number in wanted if number >= limit)
    note = (
        f"No statistics from {' or '.join(map(str, dropped))} images: {fewest} has {limit} for training."
        if dropped
        else ""
    )
    return tuple(sorted(number for number in wanted if number < limit)), note


def _task(
    laboratory: Laboratory, arm: Arm, centre: str, seed: int, images: tuple[int, ...], digest: str
) -> Task:
    study = without(arm.study(laboratory.study, seed), centre)
    return Task(
        name=f"{arm.name} without {centre}, seed {seed}, images {images}",
        folder=laboratory.out / "left_out" / arm.name / centre / f"seed-{seed}",
        study=study,
        data_digest=digest,
        train=partial(
            leave_out, arm.name, study, centre, images, laboratory.sites, resources=laboratory.resources
        ),
    )


def without(study: StudyConfig, centre: str) -> StudyConfig:
    """Return the study without one of its sites."""
    federation = study.federation
    others = tuple(name for name in federation.sites if name != centre)
    return study.model_copy(
        update={"federation": federation.model_copy(update={"sites": others, "quorum": None})}
    )


def _as_condition(run: ArmRun, centres: set[str]) -> ArmRun:
    """Return a yardstick's answers as conditions of left-out centres."""
    records: list[Predictions] = [
        replace(record, protocol="loco", condition=record.arm.split("+", maxsplit=1)[0])
        for record in run.predictions
        if record.protocol == "per_site" and record.test_site in centres
    ]
    return ArmRun(records, {}, run.seconds)
