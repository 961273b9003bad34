"""Contents of a laboratory report with a known structure, and how to look into its tables."""

from dataclasses import replace
from typing import Any

from plotly.offline import get_plotlyjs

from semc.reporting.laboratory import (
    LaboratoryContents,
    SiteCounts,
    render_laboratory_report,
)
from semc.reporting.predictions import Predictions
from semc.reporting.text_table import TextTable
from semc.reporting.yardsticks import Yardsticks
from tests.semc.reporting.made_predictions import CLASSES, SITES, compared, crossed, left_out

PLAIN = {"fedavg": Yardsticks(), "silo": Yardsticks()}


def contents_of(**changes: Any) -> LaboratoryContents:
    """Return contents of three centres with every part, some of it changed."""
    contents = LaboratoryContents(
        title="Three centres <together> & apart",
        question="Does it hold across centres?",
        predictions=[*compared(), *crossed(), *left_out()],
        classes=CLASSES,
        site_counts={
            site: SiteCounts(
                400, 120, 90, 30, {"head": 201, "abdomen": 150, "femur": 0 if site == "west" else 170}
            )
            for site in SITES
        },
        centre_kind="device",
        centre_rule="machine and operator",
        curves={arm: {site: [(1, 0.3), (2, 0.5)] for site in SITES} for arm in ("fedavg", "silo")},
        training={"local": {"moe": 0.9}, "silo": {"moe": 0.7, "alpha": 0.625}},
        settings={"training": {"learning_rate": 0.01, "gradient_clip": None}},
        digest="d" * 64,
        notes=("Two centres were too small.",),
        yardsticks=PLAIN,
    )
    return replace(contents, **changes)


def words_of(contents: LaboratoryContents) -> str:
    """Return the page without plotly's own code."""
    return render_laboratory_report(contents).replace(get_plotlyjs(), "")


def cell(table: TextTable, row: str, column: str) -> str:
    """Return the text of one cell."""
    return next(cells for cells in table.rows if cells[0] == row)[table.columns.index(column)]


def all_at(site: str, **changes: int) -> list[Predictions]:
    """Return every arm and seed at one site."""
    return compared(sites=(site,), **changes)
