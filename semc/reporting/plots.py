"""The curves and matrices of a study's report, as plotly figures without fixed background or ink.

Text and grid take the page's own colours by its style sheet, so one figure reads on light, dark and paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import plotly.graph_objects as go

from semc.metrics import Confusion
from semc.reporting.result import RoundResult, StudyResult

# Okabe and Ito's colours that hold on light and dark ground, told apart by colour-blind readers.
PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_SHADES: Final = ((0, "rgba(0,114,178,0.04)"), (1, "rgba(0,114,178,0.72)"))
"""Colour scale of the heat maps."""
_DASHES: Final = ("solid", "dash", "dashdot")
_MAX_ROUND_TICKS: Final = 20
_CLEAR: Final = "rgba(0,0,0,0)"


def score_curves(result: StudyResult) -> go.Figure:
    """Return macro-F1 on each site's test images after every round; dotted: its model trained alone."""
    figure = bare_figure("round", "macro-F1", height=380)
    for number, site in enumerate(result.sites):
        scores = [(r.round, _macro_f1(result, r, site.site)) for r in result.rounds]
        points = [(at, score) for at, score in scores if score is not None]
        line = line_style(number)
        figure.add_trace(
            go.Scatter(
                x=[x for x, _ in points],
                y=[y for _, y in points],
                name=site.site,
                legendgroup=site.site,
                mode="lines+markers",
                line=line,
                hovertemplate=f"{site.site}<br>round %{{x}}: %{{y:.3f}}<extra></extra>",
            )
        )
        alone = result.confusion(site.local_only_confusion)
        if alone is not None and alone.macro_f1 is not None and result.rounds:
            figure.add_trace(
                go.Scatter(
                    x=[result.rounds[0].round, result.rounds[-1].round],
                    y=[alone.macro_f1] * 2,
                    name=f"{site.site} alone",
                    legendgroup=site.site,
                    showlegend=False,
                    mode="lines",
                    line={"color": line["color"], "dash": "dot", "width": 1.5},
                    hovertemplate=f"{site.site} alone: %{{y:.3f}}<extra></extra>",
                )
            )
    figure.update_xaxes(**_round_ticks(result))
    figure.update_yaxes(range=[0, 1.02])
    return figure


def loss_curves(result: StudyResult) -> go.Figure:
    """Return the mean training loss of every site and round."""
    figure = bare_figure("round", "training loss", height=320)
    for number, site in enumerate(result.sites):
        points = [(r.round, r.train_loss[site.site]) for r in result.rounds if site.site in r.train_loss]
        figure.add_trace(
            go.Scatter(
                x=[x for x, _ in points],
                y=[y for _, y in points],
                name=site.site,
                mode="lines+markers",
                line=line_style(number),
                hovertemplate=f"{site.site}<br>round %{{x}}: %{{y:.3f}}<extra></extra>",
            )
        )
    figure.update_xaxes(**_round_ticks(result))
    return figure


def confusion_heatmap(confusion: Confusion, classes: list[str]) -> go.Figure:
    """Return counts as a heat map, each row shaded by its share: the diagonal is the recall of its class.

    Args:
        confusion: Rows truth, columns prediction.
        classes: Names in the order of the matrix.
    """
    support = confusion.support
    shares = [
        [float(count) / total if total else None for count in row]
        for row, total in zip(confusion.counts.tolist(), support.tolist(), strict=True)
    ]
    axis = [str(k) for k in range(len(classes))]
    figure = bare_figure("called", "true class", height=150 + 40 * len(classes))
    figure.add_trace(
        shaded_cells(
            shares,
            axis,
            axis,
            text=confusion.counts.tolist(),
            hover="true %{y}, called %{x}<br>%{text} images, %{z:.0%} of the class",
        )
    )
    names = [f"{name} ({total})" for name, total in zip(classes, support.tolist(), strict=True)]
    figure.update_xaxes(tickvals=axis, ticktext=classes, showgrid=False, tickangle=-35)
    figure.update_yaxes(tickvals=axis, ticktext=names, showgrid=False, autorange="reversed")
    return figure


def recall_bars(result: StudyResult) -> go.Figure:
    """Return the recall of every class at every site; a class without test images has no bar."""
    figure = bare_figure("", "recall (sensitivity)", height=360)
    for number, site in enumerate(result.sites):
        confusion = result.confusion(site.test_confusion)
        if confusion is None:
            continue
        rows = [row for row in confusion.per_class() if row.recall is not None]
        figure.add_trace(
            go.Bar(
                x=[result.classes[row.index] for row in rows],
                y=[row.recall for row in rows],
                name=site.site,
                marker={"color": line_style(number)["color"]},
                text=[f"n={row.support}" for row in rows],
                textposition="outside",
                hovertemplate=f"{site.site}, %{{x}}<br>%{{y:.3f}} (%{{text}})<extra></extra>",
            )
        )
    figure.update_layout(barmode="group", bargap=0.25)
    figure.update_xaxes(categoryorder="array", categoryarray=result.classes)
    figure.update_yaxes(range=[0, 1.1])
    return figure


def _macro_f1(result: StudyResult, round_result: RoundResult, site: str) -> float | None:
    """Return a site's macro-F1 after a round: on test images, else on validation images."""
    confusion = result.confusion(round_result.test.get(site) or round_result.validation.get(site))
    return confusion.macro_f1 if confusion is not None else None


def _round_ticks(result: StudyResult) -> dict[str, Any]:
    """Return ticks at whole rounds only."""
    return {"dtick": 1} if len(result.rounds) <= _MAX_ROUND_TICKS else {"tickformat": "d"}


def line_style(number: int) -> dict[str, Any]:
    """Return colour and dash of the n-th site or arm, distinct for 18."""
    return {
        "color": PALETTE[number % len(PALETTE)],
        "dash": _DASHES[number // len(PALETTE) % len(_DASHES)],
        "width": 2.25,
    }


def shaded_cells(
    shares: Sequence[Sequence[float | None]],
    columns: Sequence[str],
    rows: Sequence[str],
    *,
    text: Sequence[Sequence[Any]],
    hover: str,
) -> go.Heatmap:
    """Return a table of shares in [0, 1], each cell shaded by its share and with its own text."""
    return go.Heatmap(
        z=shares,
        x=columns,
        y=rows,
        text=text,
        texttemplate="%{text}",
        zmin=0,
        zmax=1,
        colorscale=_SHADES,
        showscale=False,
        xgap=2,
        ygap=2,
        hovertemplate=f"{hover}<extra></extra>",
    )


def bare_figure(x_title: str, y_title: str, height: int) -> go.Figure:
    """Return an empty figure in the report's style."""
    axis = {"gridcolor": "rgba(128,128,128,0.25)", "zeroline": False, "automargin": True}
    return go.Figure(
        layout={
            "template": go.layout.Template(),
            "height": height,
            "margin": {"l": 56, "r": 16, "t": 24, "b": 48},
            "paper_bgcolor": _CLEAR,
            "plot_bgcolor": _CLEAR,
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": "#777777"},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "hoverlabel": {"font": {"family": "system-ui, sans-serif"}},
            "xaxis": {"title": {"text": x_title}, **axis},
            "yaxis": {"title": {"text": y_title}, **axis},
        }
    )
