"""A table of text, made once and shown as HTML, Markdown or in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from semc.reporting.estimate import Difference, Estimate

ABSENT: Final = "–"
UP: Final = "↑"
DOWN: Final = "↓"
"""Mark a difference whose interval leaves out zero."""


@dataclass(frozen=True)
class TextTable:
    """Columns and rows of text; the first column names the row."""

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def with_remarks(self, remarks: Sequence[str]) -> TextTable:
        """Return the table with further sentences at the end of its caption."""
        return replace(self, caption=" ".join([self.caption, *remarks]))

    def markdown(self) -> str:
        """Return title, table and caption as Markdown."""
        return f"### {self.title}\n\n{markdown_table(self.columns, self.rows)}\n\n{self.caption}\n"


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table, all but its first column right-aligned."""
    lines = [tuple(columns), ("---", *["---:"] * (len(columns) - 1)), *map(tuple, rows)]
    escaped = ([cell.replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in escaped)


def format_score(score: float | None) -> str:
    """Return a score with three decimals, or a dash."""
    return ABSENT if score is None else f"{score:.3f}"


def format_difference(difference: float | None) -> str:
    """Return a difference with its sign, or a dash."""
    return ABSENT if difference is None else f"{difference:+.3f}"


def format_estimate(estimate: Estimate | None) -> str:
    """Return "0.812 (0.780 to 0.840)", without the bracket where there is no interval."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return format_score(estimate.value if estimate is not None else None)
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def format_paired(difference: Difference | None) -> str:
    """Return "+0.120 (+0.080 to +0.150) ↑"; the arrow only where the interval leaves out zero."""
    estimate = difference.estimate if difference is not None else None
    if difference is None or estimate is None or estimate.low is None or estimate.high is None:
        return format_difference(estimate.value if estimate is not None else None)
    arrow = {1: f" {UP}", 0: "", -1: f" {DOWN}"}[difference.sign]
    return f"{estimate.value:+.3f} ({estimate.low:+.3f} to {estimate.high:+.3f}){arrow}"


def format_share(share: Estimate | None) -> str:
    """Return "54 % (35 to 75 %)", or a dash."""
    if share is None or share.low is None or share.high is None:
        return ABSENT
    return f"{100 * share.value:.0f} % ({100 * share.low:.0f} to {100 * share.high:.0f} %)"


def format_spread(spread: tuple[float, float] | None) -> str:
    """Return lowest and highest seed, or a dash for a single one."""
    return ABSENT if spread is None else f"{spread[0]:.3f} to {spread[1]:.3f}"
