"""An inspection as tables for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from simulation.inspect import CentreFacts, Inspection, PictureFacts


def inspection_report(found: Inspection) -> Group:
    """Return an inspection for people; scripts take the JSON."""
    task = f", task {found.task}" if found.task else ""
    splits = ", ".join(f"{name} {size}" for name, size in found.splits.items())
    parts: list[RenderableType] = [
        Text(
            f"{found.cohort}{task}: {found.images} images of {found.patients} patients or streams ({splits})"
        ),
        Text(f"licence: {found.licence}"),
        _classes(found),
    ]
    parts += [_centres(found, facts) for facts in found.centres if facts.num_centres]
    if not any(facts.num_centres for facts in found.centres):
        parts.append(Text("no centres: hospitals made of it are synthetic partitions"))
    if found.pictures is not None:
        parts.append(_pictures(found.pictures))
    parts += [Text(f"note: {note}") for note in found.notes]
    parts += [Text(f"warning: {warning}", style="yellow") for warning in found.warnings]
    return Group(*parts)


def _classes(found: Inspection) -> Table:
    table = Table("class", title="Classes")
    table.add_column("images", justify="right")
    table.add_column("patients", justify="right")
    for facts in found.classes:
        table.add_row(facts.name, str(facts.images), str(facts.patients))
    return table


def _centres(found: Inspection, facts: CentreFacts) -> Table:
    default = ", default" if facts is found.centres[0] else ""
    by = ",".join(facts.columns)
    cue = facts.class_from_centre
    title = f"Centres by {by} ({facts.kind}{default}): {facts.num_centres}"
    caption = (
        f"share of images whose class is guessed right knowing only the centre: {cue.cue_accuracy:.2f}; "
        f"always the commonest class: {cue.blind_accuracy:.2f}"
    )
    table = Table("centre", title=title, caption=caption)
    for heading in ("patients", *(entry.name for entry in found.classes)):
        table.add_column(heading, justify="right")
    for name, counts in facts.counts.items():
        table.add_row(name, str(facts.patients[name]), *(str(count) for count in counts.values()))
    return table


def _pictures(pictures: PictureFacts) -> Table:
    # which borders the pairs cross is told by the warning: a caption is folded to the table's width
    caption = f"{pictures.near_duplicates.across_patients} look-alike pairs across patients"
    table = Table("centre", title=f"Pictures: {pictures.images} decoded", caption=caption)
    for heading in ("images", "sizes", "brightness"):
        table.add_column(heading, justify="left" if heading == "sizes" else "right")
    for name, facts in pictures.by_centre.items():
        sizes = ", ".join(f"{size} ({count})" for size, count in facts.sizes.items())
        brightness = f"{facts.brightness_mean:.0f} ± {facts.brightness_sd:.0f}"
        table.add_row(name, str(facts.images), sizes, brightness)
    return table
