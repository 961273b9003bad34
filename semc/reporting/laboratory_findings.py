"""What a comparison of arms, or a study that leaves centres out, has to show: its contents and its findings.

Findings are computed once, from the recorded predictions alone, and shown as page, Markdown and CSV.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Literal

from semc.reporting.bootstrap import NUM_RESAMPLES, PatientBootstrap
from semc.reporting.cross_site import CrossSiteMatrix, cross_site_matrices, home_and_away
from semc.reporting.groups import LOCAL, Groups, arm_groups, condition_groups, is_yardstick
from semc.reporting.laboratory_arms import arms_table
from semc.reporting.laboratory_calibration import calibration_table
from semc.reporting.laboratory_centres import differences_table, sites_table
from semc.reporting.laboratory_cross_site import away_table, cross_site_table
from semc.reporting.laboratory_left_out import left_out_table
from semc.reporting.laboratory_planes import plane_sites_table, planes_table, untrained_table
from semc.reporting.laboratory_plots import Curves
from semc.reporting.laboratory_training import training_table
from semc.reporting.laboratory_verdict import judge_apart, judge_arms
from semc.reporting.left_out_verdict import judge_left_out
from semc.reporting.majority import majority_scores
from semc.reporting.predictions import Predictions
from semc.reporting.remarks import Remarks
from semc.reporting.site_counts import SiteCounts, data_table
from semc.reporting.text_table import TextTable
from semc.reporting.verdict import Verdict
from semc.reporting.yardsticks import Yardsticks

CentreKind = Literal["real", "device", "acquisition", "synthetic"]

CENTRES: Final[Mapping[CentreKind, str]] = {
    "real": "The centres are real: hospitals as recorded by those who published the images.",
    "device": "The centres are devices and who used them, recorded within a few hospitals: real differences in how "
    "images look, but not in which patients come.",
    "acquisition": "The centres are sources of acquisition, such as one contributor or probe: real differences in how "
    "images look, but no hospital's whole practice.",
    "synthetic": "The centres were made by software: their differences are designed, not observed.",
}
PHANTOM: Final = (
    "The images are of a phantom or drawn by software. They test the method and the programs; nothing here says "
    "anything about patients or clinical use."
)
PRIVACY: Final = (
    "No formal guarantee: a laboratory trains and scores on machines that see every centre's images, and its figures "
    "are functions of them, whatever privacy mode its arms are in."
)
COVERAGE: Final = (
    f"Intervals: {NUM_RESAMPLES} draws of patients with replacement within each centre, each with all its images, "
    "the same draw for all arms, conditions and seeds; 2.5th to 97.5th percentile. They cover which patients happened "
    "to be tested. They cover neither the chance in training, for which the spread between seeds stands beside them, "
    "nor which centres took part, nor choices made after looking. Many comparisons are shown: of twenty with no "
    "true difference, about one interval leaves out zero by chance. The interval of a worst centre is that of the "
    "lowest centre of each draw and leans low. A draw without any patient of a rare class scores the other classes, "
    "which widens intervals upwards. Few patients make intervals too narrow: in simulated tests of one "
    "centre they held the true difference of two arms about 90 times in 100 with 10 patients and 94 times with 80, "
    "not 95."
)


@dataclass(frozen=True)
class LaboratoryContents:
    """All that a laboratory report is made of."""

    title: str
    question: str
    """What the comparison asks, in words."""
    predictions: Sequence[Predictions]
    classes: Sequence[str]
    site_counts: Mapping[str, SiteCounts]
    centre_kind: CentreKind
    """What a centre of these data honestly is."""
    centre_rule: str = ""
    """By which columns or rule images were given to centres, in words."""
    phantom: bool = False
    """Whether the images are of a phantom, physical or drawn."""
    curves: Curves = field(default_factory=dict)
    training: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Arm to the parts of its objective in the last round of training, mean over sites and seeds."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    digest: str = ""
    sample_images: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Site to base64 images."""
    notes: Sequence[str] = ()
    main_arm: str = ""
    """The arm the answer is about, named before looking; "" for the baseline, else the first federated arm."""
    yardsticks: Mapping[str, Yardsticks] = field(default_factory=dict)
    """Arm to the two arms with its own loss and network; an arm without them closes no gap."""
    baseline_arm: str = "fedavg"
    remarks: Remarks = field(default_factory=Remarks)
    against_arm: str = ""
    """The arm that every other one is compared with, centre by centre; "" for training alone, where it was run."""

    @cached_property
    def findings(self) -> Findings:
        """Verdicts and tables, computed once for page and Markdown; errors as :func:`find`."""
        return find(self)

    def judged_arm(self) -> str:
        """Return the arm the answer is about; "" where there is none."""
        arms = list(dict.fromkeys(record.arm for record in self.predictions))
        federated = [arm for arm in arms if not is_yardstick(arm)]
        if self.main_arm in arms:
            return self.main_arm
        return self.baseline_arm if self.baseline_arm in arms else next(iter([*federated, *arms]), "")


@dataclass(frozen=True)
class Part:
    """The arms, or the conditions of left-out centres, with all that is known about them."""

    groups: Groups
    bootstrap: PatientBootstrap
    verdict: Verdict
    scores: tuple[TextTable, ...]
    planes: tuple[TextTable, ...]
    calibration: TextTable


@dataclass(frozen=True)
class Findings:
    """Verdicts and tables of a laboratory."""

    data: TextTable
    arms: Part | None
    """None where no arm was scored site by site."""
    left_out: Part | None
    """None where no centre was left out."""
    cross_site: tuple[CrossSiteMatrix, ...]
    away: TextTable | None
    """None where no model was scored at another site."""
    training: TextTable | None
    """None where nothing was logged."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """Those there are."""
        return tuple(part for part in (self.arms, self.left_out) if part is not None)

    def tables(self) -> list[TextTable]:
        """Return all tables in the order of the page."""
        scores = [table for part in self.parts for table in part.scores]
        planes = [table for part in self.parts for table in part.planes]
        crossed = map(cross_site_table, self.cross_site)
        away = [self.away] if self.away is not None else []
        training = [self.training] if self.training is not None else []
        calibration = [part.calibration for part in self.parts]
        return [self.data, *scores, *away, *crossed, *planes, *calibration, *training]


def find(contents: LaboratoryContents) -> Findings:
    """Compute verdicts and tables.

    Raises:
        SemcError: CHECKPOINT_INVALID where predictions cannot be paired.
    """
    travelled = home_and_away(contents.predictions)
    return Findings(
        data=data_table(contents.site_counts, contents.classes),
        arms=_arms(contents),
        left_out=_left_out(contents),
        cross_site=tuple(cross_site_matrices(contents.predictions)),
        away=away_table(travelled) if travelled else None,
        training=training_table(contents.training) if contents.training else None,
    )


def laboratory_markdown(contents: LaboratoryContents) -> str:
    """Return answers and tables as Markdown."""
    findings = contents.findings
    lines = [f"# {contents.title}", contents.question]
    for part in findings.parts:
        details = "\n".join(f"- {detail}" for detail in part.verdict.details)
        lines += [part.verdict.sentence, details, part.verdict.caution]
    lines += [centres_in_words(contents), *([PHANTOM] if contents.phantom else []), PRIVACY]
    lines += [table.markdown().rstrip() for table in findings.tables()]
    return "\n\n".join(line for line in [*lines, COVERAGE, *contents.notes] if line) + "\n"


def centres_in_words(contents: LaboratoryContents) -> str:
    """Say what a centre is, and by which rule."""
    rule = f" Rule: {contents.centre_rule.rstrip('.')}." if contents.centre_rule else ""
    return f"{CENTRES[contents.centre_kind]}{rule}"


def _arms(contents: LaboratoryContents) -> Part | None:
    groups = arm_groups(contents.predictions)
    if not groups:
        return None
    main = contents.judged_arm()
    fair = contents.yardsticks.get(main)
    local = fair.local if fair is not None and fair.local in groups else LOCAL
    bootstrap = PatientBootstrap(groups)
    against = contents.against_arm or local
    federated = main in groups and not is_yardstick(main)
    untrained = untrained_table(groups, contents.site_counts, contents.classes)
    scores = [
        arms_table(bootstrap, (local, contents.baseline_arm, against), contents.yardsticks),
        *([differences_table(bootstrap, against)] if against in groups and len(groups) > 1 else []),
        sites_table(bootstrap, "arm", majority_scores(groups, contents.site_counts, contents.classes)),
        sites_table(PatientBootstrap(groups, "balanced_accuracy"), "arm"),
    ]
    planes = [
        planes_table(groups, contents.classes, "arm"),
        *([untrained] if untrained is not None else []),
    ]
    remarks = contents.remarks.arms
    return Part(
        groups=groups,
        bootstrap=bootstrap,
        verdict=judge_arms(bootstrap, main, fair) if federated else judge_apart(bootstrap, against),
        scores=tuple(table.with_remarks(remarks) for table in scores),
        planes=(
            *(table.with_remarks(remarks) for table in planes),
            *(
                plane_sites_table(name, groups[name], contents.classes)
                for name in (main, local)
                if name in groups
            ),
        ),
        calibration=calibration_table(groups, "arm").with_remarks(remarks),
    )


def _left_out(contents: LaboratoryContents) -> Part | None:
    groups = condition_groups(contents.predictions)
    if not groups:
        return None
    bootstrap = PatientBootstrap(groups)
    return Part(
        groups=groups,
        bootstrap=bootstrap,
        verdict=judge_left_out(bootstrap, contents.judged_arm()),
        scores=(left_out_table(bootstrap).with_remarks(contents.remarks.left_out),),
        planes=(planes_table(groups, contents.classes, "condition"),),
        calibration=calibration_table(groups, "condition"),
    )
