"""The plan as one page that loads nothing: epsilon against rounds, with the hospital's limit."""

from __future__ import annotations

from pathlib import Path

import plotly.graph_objects as go

from client.ledger_plan import Plan
from semc.exit_codes import ExitCode, SemcError
from semc.reporting.page import figure_html, render_page, write_page
from semc.reporting.plots import bare_figure


def write_chart(plan: Plan, out: Path) -> Path:
    """Write a plan's page.

    Args:
        plan: From :func:`client.ledger_plan.plan_study`.
        out: HTML file.

    Raises:
        SemcError: USAGE where the file's folder is missing, DISK.
    """
    if not out.parent.is_dir():
        raise SemcError(
            ExitCode.USAGE,
            "The folder that --chart names does not exist.",
            "make it, or name a file in one that does",
        )
    page = render_page("plan.html.j2", plan=plan, figure=figure_html(_figure(plan), "epsilon"))
    return write_page(page, out)


def _figure(plan: Plan) -> go.Figure:
    figure = bare_figure("rounds", "epsilon", height=420)
    rounds = [point.rounds for point in plan.points]
    curves: list[tuple[str, list[float | None], str]] = [
        ("this study, RDP (decides)", [point.epsilon for point in plan.points], "solid"),
        ("this study, PRV", [point.epsilon_prv for point in plan.points], "dot"),
        ("with everything before it", [point.with_history for point in plan.points], "dash"),
    ]
    for name, values, dash in curves:
        if any(value is not None for value in values):
            figure.add_scatter(
                x=rounds,
                y=values,
                name=name,
                mode="lines+markers",
                line={"dash": dash},
                hovertemplate=f"{name}<br>round %{{x}}: %{{y:.2f}}<extra></extra>",
            )
    if plan.limit is not None:
        figure.add_hline(
            y=plan.limit, line_dash="dash", line_color="#b3361f", annotation_text="the hospital's limit"
        )
    figure.update_yaxes(rangemode="tozero")
    return figure
