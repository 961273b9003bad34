"""What every page of this package shares: one file that loads nothing, with plotly.js, styles and figures inside."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.io
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from semc.exit_codes import ExitCode, SemcError
from semc.reporting.text_table import ABSENT, format_score


def render_page(template: str, **content: object) -> str:
    """Return the HTML of a template that extends `page.html.j2`.

    Args:
        template: Its file name.
        content: What it shows; text is escaped, only :class:`~markupsafe.Markup` is not.
    """
    environment = Environment(
        loader=PackageLoader("semc.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["score"] = format_score
    return environment.get_template(template).render(
        **content,
        absent=ABSENT,
        plotly_js=Markup(get_plotlyjs()),  # noqa: S704 - the installed package's own file
    )


def write_page(page: str, out: Path) -> Path:
    """Write a page, whole or not at all.

    Args:
        page: HTML.
        out: The file; its folder is made where missing.

    Returns:
        `out`.

    Raises:
        SemcError: DISK where it cannot be written.
    """
    temporary = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(page, encoding="utf-8")
        os.replace(temporary, out)
    except OSError as error:
        raise SemcError(
            ExitCode.DISK,
            f"The report could not be written ({error.strerror}).",
            "free space or choose another folder",
        ) from error
    return out


def figure_html(figure: go.Figure, identifier: str) -> Markup:
    """Return a figure as a piece of HTML that uses the page's plotly.js.

    Args:
        figure: Without a background of its own.
        identifier: Unique on the page.
    """
    html = plotly.io.to_html(
        figure,
        full_html=False,
        include_plotlyjs=False,
        div_id=identifier,
        config={"displaylogo": False, "responsive": True, "displayModeBar": False},
    )
    return Markup(html)  # noqa: S704 - plotly escapes its JSON


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield dotted keys and values of nested settings."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat_settings(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", ", ".join(str(item) for item in value)
        else:
            yield f"{prefix}{key}", ABSENT if value is None else str(value)
