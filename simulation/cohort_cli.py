"""`semc-sim sites`, `phantom` and `inspect`: from a data set to hospitals, on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from simulation.options import (
    CohortOption,
    Format,
    FormatOption,
    OutOption,
    SeverityOption,
    TaskOption,
    ViewSourceOption,
    assignment,
    print_json,
    print_rich,
    words,
)


def sites(
    out: OutOption,
    source: Annotated[
        list[str] | None,
        typer.Option("--from", help="'phantom' (default), or a folder; repeat to join on shared classes."),
    ] = None,
    cohort: CohortOption = None,
    task: TaskOption = None,
    view_source: ViewSourceOption = "tag",
    partition: Annotated[
        str,
        typer.Option(help="by_centre | iid | dirichlet | label_skew | quantity_skew; patients stay whole."),
    ] = "by_centre",
    count: Annotated[
        int, typer.Option("--sites", min=1, max=1000, help="Number of hospitals (not for by_centre).")
    ] = 3,
    centre_columns: Annotated[
        str | None, typer.Option(help="Columns that name the centre, joined: machine,operator.")
    ] = None,
    keep: Annotated[str | None, typer.Option(help="Only these centres, separated by ';'.")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Keep rows with column=value; may be repeated.")
    ] = None,
    alpha: Annotated[
        float, typer.Option(min=0.001, help="Dirichlet concentration; small = more skew.")
    ] = 0.5,
    classes_per_site: Annotated[int, typer.Option(min=1, help="Classes per hospital of label_skew.")] = 2,
    names: Annotated[
        str | None, typer.Option(help="Names of the hospitals, separated by commas; default: hospital_1, ...")
    ] = None,
    planes: Annotated[
        str | None, typer.Option(help="Phantom planes to draw, separated by commas; default: all.")
    ] = None,
    patients: Annotated[int, typer.Option(min=4, help="Phantom patients per hospital.")] = 40,
    frames: Annotated[int, typer.Option(min=1, help="Phantom frames per patient.")] = 4,
    test_patients: Annotated[
        int, typer.Option(min=1, help="Phantom patients per hospital for testing.")
    ] = 20,
    class_prior: Annotated[
        float,
        typer.Option(min=0, help="Phantom: concentration of each hospital's class shares; 0 = equal shares."),
    ] = 4.0,
    image_size: Annotated[int, typer.Option(min=32, help="Phantom image side, pixels.")] = 128,
    without: Annotated[
        list[str] | None,
        typer.Option(
            help="site=class: the site trains without this class, its test images stay; may be repeated."
        ),
    ] = None,
    severity: SeverityOption = None,
    allow_ungrouped: Annotated[
        bool, typer.Option(help="Accept images without a patient or stream key.")
    ] = False,
    validation_fraction: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share for validation where the source has no such split.")
    ] = 0.15,
    test_fraction: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share for testing where the source has no such split.")
    ] = 0.25,
    seed: Annotated[int, typer.Option(min=0, help="Seed of phantom and partition.")] = 0,
    output: FormatOption = Format.TEXT,
) -> None:
    """Write one folder per hospital: site.yaml, manifest.csv and images.

    Example: semc-sim sites --from phantom --sites 5 --severity 0.6 --out hospitals
    """
    from semc.config.section import usage_errors
    from simulation.make_sites import SitesRequest, make_sites
    from simulation.sites_summary import read_summary, sites_report

    with usage_errors():
        request = SitesRequest(
            source=(source or ["phantom"])[0],
            joined_with=tuple((source or ["phantom"])[1:]),
            cohort=cohort,
            task=task,
            view_source=view_source,
            partition=partition,
            num_sites=len(words(names, ",")) or count,
            site_names=tuple(words(names, ",")) or None,
            classes=tuple(words(planes, ",")) or None,
            centre_columns=tuple(words(centre_columns, ",")),
            keep_centres=tuple(words(keep, ";")) or None,
            where=dict(assignment(pair) for pair in where or ()),
            alpha=alpha,
            classes_per_site=classes_per_site,
            patients_per_site=patients,
            test_patients_per_site=test_patients,
            class_prior=class_prior or None,
            without=tuple(assignment(pair) for pair in without or ()),
            frames_per_patient=frames,
            image_size=image_size,
            **({} if severity is None else {"severity": severity}),
            allow_ungrouped=allow_ungrouped,
            validation_fraction=validation_fraction,
            test_fraction=test_fraction,
            seed=seed,
        )
    counts = make_sites(request, out)
    if output is Format.JSON:
        print_json({name: count.model_dump(mode="json") for name, count in counts.items()})
    else:
        print_rich(sites_report(read_summary(out)))


def phantom(
    out: OutOption,
    write_as: Annotated[
        str,
        typer.Option(
            help="manifest | lp2025 | fpus23 | fpus23_planes | camus | camus_older | fetal_planes | "
            "fetal_brain_planes | african_planes | pocus | pocus_repository | dicom."
        ),
    ] = "manifest",
    centres: Annotated[int, typer.Option(min=1, max=100, help="Hospitals to draw.")] = 3,
    patients: Annotated[int, typer.Option(min=1, help="Training patients per hospital.")] = 12,
    frames: Annotated[int, typer.Option(min=1, max=64, help="Frames per patient or stream.")] = 6,
    image_size: Annotated[int, typer.Option(min=32, max=512, help="Image side, pixels.")] = 128,
    severity: SeverityOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed.")] = 0,
) -> None:
    """Write synthetic images in a real cohort's layout, to try its reader without anybody's data.

    Example: semc-sim phantom --write-as camus --out camus && semc-sim sites --from camus --partition iid --out sites
    """
    from semc.datasets.phantom import PhantomConfig
    from semc.datasets.phantom.layouts import write_layout

    config = PhantomConfig(
        seed=seed,
        centre_names=tuple(f"hospital_{number}" for number in range(1, centres + 1)),
        patients_per_centre=patients,
        test_patients_per_centre=max(1, patients // 3),
        frames_per_patient=frames,
        image_size=image_size,
        **({} if severity is None else {"severity": severity}),
    )
    written = write_layout(config, write_as, out)
    typer.echo(f"{len(written)} synthetic images in {out}")


def inspect(
    data: Annotated[list[str], typer.Argument(help="Folder of a cohort; several are joined.")],
    cohort: CohortOption = None,
    task: TaskOption = None,
    view_source: ViewSourceOption = "tag",
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Also decode the pictures: sizes, near duplicates.")
    ] = True,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show a cohort before anything is trained: classes, patients, centres, near duplicates, shortcuts.

    Example: semc-sim inspect fpus23 --task view
    """
    from simulation.inspect import inspect_source
    from simulation.inspect_report import inspection_report

    inspection = inspect_source(
        [Path(folder) for folder in data], cohort=cohort, task=task, view_source=view_source, images=images
    )
    if output is Format.JSON:
        typer.echo(inspection.model_dump_json(indent=2))
    else:
        print_rich(inspection_report(inspection))
