"""`semc-sim compare`: arms x seeds on one study and one set of sites, to one table and one report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rich.console import Console

from client.lock import held
from semc.config import StudyConfig
from semc.exit_codes import ExitCode, SemcError
from semc.reporting.laboratory import LaboratoryContents, build_laboratory_report, laboratory_markdown
from semc.reporting.predictions import Predictions, write_predictions
from semc.reporting.remarks import Remarks
from semc.reporting.tidy import tidy_csv
from simulation.arm_relations import fair_yardsticks, one_training, remark_on_one_training
from simulation.arm_run import ArmRun, run_arm
from simulation.arms import Arm, parse_arm, parse_arms
from simulation.laboratory_data import describe_sites
from simulation.run import Resources
from simulation.tasks import PREDICTIONS, Task, data_digest, run_tasks
from simulation.training_log import last_terms, term_rows

CSV, TERMS, MARKDOWN, REPORT = "results.csv", "terms.csv", "tables.md", "report.html"


@dataclass(frozen=True)
class Laboratory:
    """What every experiment of the laboratory is given.

    Attributes:
        study: The study that arms are variations of.
        sites: Folder made by `semc-sim sites`.
        out: Folder for everything; tasks finished there earlier are not repeated.
        seeds: Of the training; the images and their splits stay.
        resources: What one arm with one seed may use of this machine.
        at_once: Arms and seeds trained at the same time.
        keep_models: Leave weights and site states on the disk.
        console: Shows progress.

    Raises:
        SemcError: USAGE where the study has patient-level privacy.
    """

    study: StudyConfig
    sites: Path
    out: Path
    seeds: Sequence[int]
    resources: Resources = field(default_factory=Resources)
    at_once: int = 1
    keep_models: bool = False
    console: Console = field(default_factory=Console)

    def __post_init__(self) -> None:
        if self.study.privacy.private:
            raise SemcError(
                ExitCode.USAGE,
                "The arms train in mode none, and this study has patient-level privacy.",
                "`semc-sim utility` compares epsilons; or give a study of mode none",
            )

    def run(self, tasks: Sequence[Task]) -> list[ArmRun]:
        """Return every task's result, see :func:`simulation.tasks.run_tasks`.

        Raises:
            SemcError: ALREADY_RUNNING where another call writes to the same folder.
        """
        problem = "Another call of `semc-sim compare` or `loco` writes to this output folder."
        with held(self.out / ".lock", problem, "wait for it, or give another --out"):
            return run_tasks(tasks, self.console, at_once=self.at_once, keep_models=self.keep_models)


def compare(
    laboratory: Laboratory, arm_names: Sequence[str], *, cross_site: bool = True, against: str = ""
) -> Path:
    """Run arms x seeds; write `results.csv`, `terms.csv`, `predictions.parquet`, `tables.md` and `report.html`.

    Args:
        laboratory: Study, sites, seeds.
        arm_names: Arms as :func:`simulation.arms.parse_arm` reads them; the first federated one is judged.
        cross_site: Also score each site's model on all other sites' images.
        against: Which of the arms every other one is compared with; "" for training alone, where it is run.

    Returns:
        The report.

    Raises:
        SemcError: Before anything is trained, a wrong arm, `against` an arm that is not run, or a setting that does
            not go with the study; later whatever a run refuses.
    """
    arms = parse_arms(arm_names)
    reference = _reference(against, arms)
    tasks = arm_tasks(laboratory, arms, cross_site=cross_site)
    runs = laboratory.run(tasks)
    judged = next((arm.name for arm in arms if arm.kind == "federated"), "")
    names = ", ".join(laboratory.study.federation.sites)
    question = (
        f"Does {laboratory.study.name} hold across {names}, and what does training together gain?"
        if judged
        else f"How do the arms of {laboratory.study.name} differ across {names}?"
    )
    twins = one_training(arms, laboratory.study)
    return write_laboratory(
        laboratory,
        runs,
        laboratory.out,
        arms,
        question,
        judged,
        remarks=Remarks(arms=tuple(map(remark_on_one_training, twins))),
        against=reference,
    )


def _reference(against: str, arms: Sequence[Arm]) -> str:
    """Return the name of the arm that others are compared with; "" where none was asked for.

    Raises:
        SemcError: USAGE where it is none of the arms.
    """
    if not against:
        return ""
    name, names = parse_arm(against).name, [arm.name for arm in arms]
    if name not in names:
        raise SemcError(
            ExitCode.USAGE, f"'{name}' is none of the arms compared.", f"--against any of {','.join(names)}"
        )
    return name


def arm_tasks(laboratory: Laboratory, arms: Sequence[Arm], *, cross_site: bool) -> list[Task]:
    """Return arms x seeds as tasks; all studies are built, and refused, before any is trained."""
    digest = data_digest(laboratory.sites, laboratory.study.federation.sites)
    return [
        Task(
            name=f"{arm.name}, seed {seed}",
            folder=laboratory.out / "arms" / arm.name / f"seed-{seed}",
            study=(study := arm.study(laboratory.study, seed)),
            data_digest=digest,
            train=partial(_train, arm, study, laboratory.sites, laboratory.resources, cross_site),
            scored="at every site" if cross_site else "at home",
        )
        for seed in laboratory.seeds
        for arm in arms
    ]


def _train(
    arm: Arm, study: StudyConfig, sites: Path, resources: Resources, cross_site: bool, folder: Path
) -> ArmRun:
    return run_arm(arm, study, sites, folder, resources, cross_site=cross_site)


def write_laboratory(
    laboratory: Laboratory,
    runs: Sequence[ArmRun],
    out: Path,
    arms: Sequence[Arm],
    question: str,
    judged: str,
    notes: Sequence[str] = (),
    remarks: Remarks | None = None,
    against: str = "",
) -> Path:
    """Write the record, the tables and the report of finished runs.

    Args:
        laboratory: Where and of what.
        runs: All of them.
        out: Folder of the files.
        arms: Arms in the order of the tables.
        question: What the experiment asks.
        judged: The arm the answer is about; "" leaves it to the report.
        notes: What to know before believing a figure, beside what is known of the images.
        remarks: What to know beside single tables and figures.
        against: The arm that every other one is compared with; "" for training alone.

    Returns:
        The report.
    """
    place = {arm.name: number for number, arm in enumerate(arms)}
    records = sorted(
        (record for run in runs for record in run.predictions), key=lambda record: place.get(record.arm, 0)
    )
    terms = term_rows(runs)
    data = describe_sites(laboratory.study, laboratory.sites)
    contents = LaboratoryContents(
        title=laboratory.study.name,
        question=question,
        predictions=records,
        classes=laboratory.study.data.classes,
        site_counts=data.counts,
        centre_kind=data.centre_kind,
        centre_rule=data.centre_rule,
        phantom=data.phantom,
        curves=_curves(runs),
        training=last_terms(terms),
        settings=laboratory.study.model_dump(mode="json"),
        digest=laboratory.study.digest(),
        sample_images=data.sample_images,
        notes=(*notes, *data.notes),
        main_arm=judged,
        yardsticks=fair_yardsticks(arms, laboratory.study),
        against_arm=against,
        remarks=remarks or Remarks(),
    )
    _write(out, records, contents)
    terms.to_csv(out / TERMS, index=False, lineterminator="\n")
    return build_laboratory_report(contents, out / REPORT)


def _write(out: Path, records: Sequence[Predictions], contents: LaboratoryContents) -> None:
    write_predictions(out / PREDICTIONS, records, contents.classes)
    (out / CSV).write_text(tidy_csv(records), encoding="utf-8")
    (out / MARKDOWN).write_text(laboratory_markdown(contents), encoding="utf-8")


def _curves(runs: Sequence[ArmRun]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return arm to site to (round, macro-F1), the mean over seeds."""
    collected: dict[str, dict[str, dict[int, list[float]]]] = {}
    for run in runs:
        for site, curve in run.curves.items():
            rounds = collected.setdefault(run.predictions[0].arm, {}).setdefault(site, {})
            for number, score in curve:
                rounds.setdefault(number, []).append(score)
    return {
        arm: {
            site: [(number, sum(scores) / len(scores)) for number, scores in sorted(rounds.items())]
            for site, rounds in sites.items()
        }
        for arm, sites in collected.items()
    }
