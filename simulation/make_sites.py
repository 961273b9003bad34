"""A source and a partition to N hospital folders, each with site.yaml, manifest.csv and its images.

`sites.json` beside the folders holds the counts an enrolment record needs.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from pydantic import Field, field_validator

from semc.config.section import Section, usage_errors
from semc.config.site import SiteName, SplitConfig
from semc.datasets.cohort_table import CohortOptions, ViewSource
from semc.datasets.phantom import DEFAULT_SEVERITY, PLANES, PhantomConfig, write_phantom
from semc.datasets.phantom.write import DESCRIPTION
from semc.datasets.sample import SourceRow
from semc.datasets.splits import split_rows
from semc.exit_codes import ExitCode, SemcError
from simulation.centres import centres_left_out, pooled, site_name, usable_centres, why_unusable
from simulation.cohort import Cohort, read_cohort, read_tables
from simulation.partition import PartitionConfig, PartitionKind, partition_patients
from simulation.site_folder import SiteCounts, write_site
from simulation.sites_summary import COUNTS_FILE, SitesSummary, read_site_counts, sites_table

_DRAWING_PROCESSES = 2

__all__ = ["COUNTS_FILE", "SiteCounts", "SitesRequest", "make_sites", "read_site_counts", "sites_table"]


class SitesRequest(Section):
    """What `semc-sim sites` is asked for."""

    source: str = "phantom"
    """`phantom`, or a folder in any layout of semc/datasets/README.md."""
    joined_with: tuple[str, ...] = ()
    """Further folders, joined with the source on the classes they share."""
    cohort: str | None = None
    """Name of the source's layout; None = recognise it."""
    task: str | None = None
    """What the labels tell, where the cohort has several tasks; None = its default."""
    view_source: ViewSource = "tag"
    """FPUS23's views: from the frame's tag, or from the sweep in the stream's name."""
    partition: Literal["auto", PartitionKind] = "auto"
    """auto = the `num_sites` largest usable centres where the source has centres, else iid by patient."""
    num_sites: int = Field(default=3, ge=1, le=1000)
    """Number of sites; by_centre takes all usable centres of a folder."""
    site_names: tuple[SiteName, ...] | None = None
    """Names of the sites, in order; None = the centres' names, or site_1, site_2, ..."""
    centre_columns: tuple[str, ...] = ()
    """Columns that name the centre; empty = the cohort's default (`semc-sim inspect` lists the others)."""
    keep_centres: tuple[str, ...] | None = None
    """Only these centres, as "Voluson E6 x Op. 1" or by site name."""
    min_patients: int = Field(default=3, ge=1)
    """Fewest patients of a centre that becomes a site."""
    where: dict[str, str] = Field(default_factory=dict)
    """Column to the value kept; empty = what is known of the table."""
    alpha: float = Field(default=0.5, gt=0)
    """Dirichlet concentration of dirichlet and quantity_skew."""
    classes_per_site: int = Field(default=2, ge=1)
    """Classes per site of label_skew."""
    classes: tuple[str, ...] | None = None
    """Phantom: planes to draw; folder: labels to keep. None = all."""
    patients_per_site: int = Field(default=40, ge=4)
    """Phantom: patients per centre for training and validation."""
    test_patients_per_site: int = Field(default=20, ge=1)
    """Phantom: further patients per centre for testing."""
    frames_per_patient: int = Field(default=6, ge=1)
    """Phantom: frames per patient."""
    image_size: int = Field(default=128, ge=32, le=512)
    """Phantom: image height, pixels."""
    severity: float = Field(default=DEFAULT_SEVERITY, ge=0, le=1)
    """Phantom: how far the scanners differ."""
    class_prior: float | None = Field(default=4.0, gt=0)
    """Phantom: Dirichlet concentration of the centres' class shares; null = equal shares."""
    without: tuple[tuple[SiteName, str], ...] = ()
    """(site, class) pairs: the site trains and validates without images of the class, its test images stay."""
    allow_ungrouped: bool = False
    """Accept images without a patient or stream key."""
    validation_fraction: float = Field(default=0.15, ge=0, lt=1)
    """Share of images for validation, where the source has no such split."""
    test_fraction: float = Field(default=0.25, ge=0, lt=1)
    """Share of images for testing, where the source has no such split."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Seed of phantom, partition and splits."""

    @field_validator("site_names")
    @classmethod
    def _names_differ(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if names is not None and len(set(names)) != len(names):
            raise ValueError("names must differ")
        return names


def make_sites(request: SitesRequest, out: Path) -> dict[str, SiteCounts]:
    """Write the site folders.

    Args:
        request: Source, partition and sizes.
        out: Folder for them, without sites: those of an earlier call may hold keys and state by now.

    Returns:
        Site name to counts, in name order; the same as `sites.json`.

    Raises:
        SemcError: USAGE where source and partition do not fit or `out` is taken, and whatever the data itself is
            refused for.
    """
    if (out / COUNTS_FILE).exists():
        raise _taken("sites")
    phantom = _phantom_config(request) if request.source == "phantom" else None
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out, prefix=".source-") as folder:
        sources = [Path(folder), *(Path(name) for name in request.joined_with)]
        if phantom is not None:
            write_phantom(phantom, Path(folder), workers=_DRAWING_PROCESSES)
        else:
            sources[0] = Path(request.source)
        options = CohortOptions(request.task, request.view_source)
        cohort = read_cohort(
            read_tables(sources, request.cohort, options),
            centre_columns=request.centre_columns,
            where=request.where,
            classes=request.classes,
            allow_ungrouped=request.allow_ungrouped,
            stills=Path(folder) / "stills",
        )
        kind, parts = _parts(cohort, request)
        split = SplitConfig(
            validation_fraction=request.validation_fraction,
            test_fraction=request.test_fraction,
            seed=request.seed,
        )
        for site, name in request.without:
            parts[site] = _never_trained_on(parts, site, name, cohort.classes, split)
        counts = _write_sites(out, cohort, parts, split)
        if phantom is not None:
            shutil.copyfile(Path(folder) / DESCRIPTION, out / DESCRIPTION)
    summary = SitesSummary(
        source="phantom" if request.source == "phantom" else " + ".join(path.name for path in sources),
        cohort=cohort.table.cohort,
        task=cohort.table.task,
        synthetic=cohort.table.synthetic,
        partition=kind,
        centre_kind=cohort.rule.kind if kind == "by_centre" else "synthetic",
        centre_columns=cohort.rule.columns,
        centres_left_out=centres_left_out(cohort, request.min_patients) if kind == "by_centre" else {},
        rows_left_out=cohort.num_left_out,
        licence=cohort.table.licence,
        notes=cohort.table.notes,
        seed=request.seed,
        sites=counts,
    )
    (out / COUNTS_FILE).write_text(summary.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return counts


def _phantom_config(request: SitesRequest) -> PhantomConfig:
    names = request.site_names or tuple(f"hospital_{number}" for number in range(1, request.num_sites + 1))
    settings: dict[str, Any] = {
        "seed": request.seed,
        "classes": request.classes or PLANES,
        "centre_names": names,
        "patients_per_centre": request.patients_per_site,
        "test_patients_per_centre": request.test_patients_per_site,
        "frames_per_patient": request.frames_per_patient,
        "image_size": request.image_size,
        "class_prior": request.class_prior,
        "severity": request.severity,
    }
    with usage_errors():
        return PhantomConfig(**settings)


def _parts(cohort: Cohort, request: SitesRequest) -> tuple[PartitionKind, dict[str, list[SourceRow]]]:
    """Return the rule that was used and each site's rows."""
    patients = cohort.patients()
    centres = usable_centres(cohort, request.min_patients, request.keep_centres)
    kind: PartitionKind = "iid" if request.partition == "auto" and not centres else "by_centre"
    if request.partition != "auto":
        kind = request.partition
    if kind == "by_centre":
        if not centres:
            raise SemcError(
                ExitCode.USAGE,
                why_unusable(cohort, request.min_patients),
                "name other centre columns (`semc-sim inspect` lists them), or use partition iid",
            )
        limit = request.num_sites if request.partition == "auto" else len(centres)
        chosen = set(list(centres)[:limit])
        patients = patients.assign(centre=[pooled(centre, centres) for centre in patients["centre"]])
        patients = patients[patients["centre"].isin(chosen)]
    config = PartitionConfig(
        kind=kind,
        num_sites=request.num_sites,
        alpha=request.alpha,
        classes_per_site=request.classes_per_site,
        min_patients=request.min_patients,
        seed=request.seed,
    )
    by_site = partition_patients(patients, config)
    if kind == "by_centre":
        by_site = {site_name(centre): groups for centre, groups in by_site.items()}
    elif request.site_names is not None and request.source != "phantom":
        by_site = dict(zip(request.site_names, by_site.values(), strict=True))
    site_of = {group: site for site, groups in by_site.items() for group in groups}
    parts: dict[str, list[SourceRow]] = {site: [] for site in by_site}
    for row in cohort.rows:
        if row.group in site_of:
            parts[site_of[row.group]].append(row)
    return kind, parts


def _never_trained_on(
    parts: dict[str, list[SourceRow]], site: str, name: str, classes: Sequence[str], split: SplitConfig
) -> list[SourceRow]:
    """Return a site's rows without its training and validation images of a class; the test images stay.

    What a site cuts itself is cut here first, so that the test patients are those it would have had.
    """
    if site not in parts or name not in classes:
        raise SemcError(
            ExitCode.USAGE,
            f"without: there is no site '{site}' with a class '{name}'.",
            f"sites: {', '.join(sorted(parts))}; classes: {', '.join(classes)}",
        )
    placed = split_rows(parts[site], split, len(classes))
    return [
        replace(row, split=where.split)
        for row, where in zip(parts[site], placed, strict=True)
        if where.split == "test" or row.label != classes.index(name)
    ]


def _write_sites(
    out: Path, cohort: Cohort, parts: dict[str, list[SourceRow]], split: SplitConfig
) -> dict[str, SiteCounts]:
    """Write the sites in name order; where one is refused, none stays behind."""
    for name in sorted(parts):
        if (out / name).exists():
            raise _taken(f"'{name}'")
    made: list[Path] = []
    counts = {}
    try:
        for name in sorted(parts):
            (out / name).mkdir()
            made.append(out / name)
            counts[name] = write_site(out / name, cohort, parts[name], split)
    except BaseException:
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    return counts


def _taken(what: str) -> SemcError:
    return SemcError(
        ExitCode.USAGE,
        f"The output folder already holds {what}, perhaps with keys and state.",
        "give another --out, or remove that folder first",
    )
