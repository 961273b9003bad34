"""`semc-sim utility`: what patient-level privacy costs in accuracy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from semc.exit_codes import ExitCode, SemcError
from simulation.options import Format, FormatOption, OutOption, OverrideOption, StudyArgument, study_of, words

Number = TypeVar("Number", int, float)


def utility(
    study: StudyArgument,
    out: OutOption,
    patients: Annotated[
        str, typer.Option(help="Training patients of each hospital, separated by commas.")
    ] = "100,400,1500",
    epsilons: Annotated[
        str, typer.Option(help="Epsilons separated by commas; inf = the same training without noise.")
    ] = "inf,8,4,2",
    seeds: Annotated[
        str, typer.Option(help="Seeds of network and pretraining; the images stay the same.")
    ] = "0,1,2",
    test_patients: Annotated[int, typer.Option(min=5, help="Test patients of each hospital.")] = 60,
    frames: Annotated[int, typer.Option(min=1, help="Frames of each patient.")] = 4,
    class_prior: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Uneven classes: Dirichlet concentration of each hospital's shares; default: equal.",
        ),
    ] = None,
    override: OverrideOption = None,
    at_once: Annotated[
        int, typer.Option("--at-once", min=1, help="Experiments at the same time, one core each.")
    ] = 1,
    output: FormatOption = Format.TEXT,
) -> None:
    """Train one private study at several epsilons and numbers of patients; writes utility.md and utility.json.

    Called again with the same folder, finished experiments are read back.

    Example: semc-sim utility phantom_dp --patients 100,400 --epsilons inf,8,2 --seeds 0 --out runs/utility
    """
    from rich.console import Console

    from client.lock import held
    from simulation.tasks import run_tasks
    from simulation.utility import UtilityRequest, utility_tasks
    from simulation.utility_report import utility_rows, write_utility

    request = UtilityRequest(
        study=study_of(study, override),
        patients=_numbers(patients, "patients", int),
        epsilons=_numbers(epsilons, "epsilons", float),
        seeds=_numbers(seeds, "seeds", int),
        test_patients=test_patients,
        frames_per_patient=frames,
        class_prior=class_prior,
    )
    out.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True, quiet=output is Format.JSON)
    with held(
        out / ".lock", "Another call writes to this output folder.", "wait for it, or give another --out"
    ):
        tasks = utility_tasks(request, out)
        runs = run_tasks(list(tasks.values()), console, at_once=at_once)
        rows = utility_rows(request, dict(zip(tasks, runs, strict=True)))
        text = write_utility(request, rows, out)
    typer.echo((out / "utility.json").read_text(encoding="utf-8") if output is Format.JSON else text)


def _numbers(text: str, name: str, kind: Callable[[str], Number]) -> tuple[Number, ...]:
    """Read positive numbers separated by commas; seeds start at 0.

    Raises:
        SemcError: USAGE.
    """
    try:
        found = [kind(word) for word in words(text, ",")]
    except ValueError:
        found = []
    least = 0.0 if name == "seeds" else 1e-9
    if not found or not all(number >= least for number in found):  # NaN is not
        raise SemcError(
            ExitCode.USAGE,
            f"--{name} '{text}' are not all positive numbers.",
            "write them with commas between; inf = without noise",
        )
    return tuple(dict.fromkeys(found))
