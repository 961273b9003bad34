"""The laboratory's figures: scores with intervals, curves of arms, cross-site heat maps, reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import plotly.graph_objects as go

from semc.reporting.bootstrap import PatientBootstrap
from semc.reporting.calibration import reliability
from semc.reporting.cross_site import CrossSiteMatrix
from semc.reporting.estimate import Estimate
from semc.reporting.plots import bare_figure, line_style, shaded_cells
from semc.reporting.predictions import Predictions

Curves = Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]
"""Arm to site to (round, macro-F1)."""
_MEAN: Final = "mean"
_NOT_IN_MEAN: Final = "<br>(not in the mean)"


def interval_plot(groups: PatientBootstrap) -> go.Figure:
    """Return every group's macro-F1 with its interval at every site and in the mean, side by side.

    A site has its place on the axis, and the groups stand beside each other in it. Sites that are in no mean say so.
    """
    figure = bare_figure("", "macro-F1", height=420)
    sites = [*groups.all_sites, *([_MEAN] if groups.sites else [])]
    for number, name in enumerate(groups.names):
        offset = (number - (len(groups.names) - 1) / 2) * 0.7 / max(len(groups.names), 2)
        found = [
            (place + offset, site, estimate)
            for place, site in enumerate(sites)
            if (estimate := groups.mean(name) if site == _MEAN else groups.site(name, site)) is not None
        ]
        figure.add_trace(
            go.Scatter(
                x=[x for x, _, _ in found],
                y=[estimate.value for _, _, estimate in found],
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": [_above(estimate) for _, _, estimate in found],
                    "arrayminus": [_below(estimate) for _, _, estimate in found],
                    "thickness": 1.5,
                    "width": 3,
                },
                text=[site for _, site, _ in found],
                name=name,
                mode="markers",
                marker={"color": line_style(number)["color"], "size": 9, "symbol": number // 6},
                hovertemplate=f"{name}, %{{text}}: %{{y:.3f}}<extra></extra>",
            )
        )
    outside = {site for site in groups.all_sites if site not in groups.sites}
    ticks = [f"{site}{_NOT_IN_MEAN}" if site in outside else site for site in sites]
    figure.update_xaxes(tickvals=list(range(len(sites))), ticktext=ticks, range=[-0.5, len(sites) - 0.5])
    figure.update_xaxes(showgrid=False)
    if groups.sites:
        figure.add_vline(x=len(sites) - 1.5, line={"color": "rgba(128,128,128,0.6)", "width": 1})
    return figure


def arm_curves(curves: Curves, site: str) -> go.Figure:
    """Return macro-F1 at one site round by round, a line an arm."""
    figure = bare_figure("round", "macro-F1", height=300)
    for number, (arm, by_site) in enumerate(curves.items()):
        points = by_site.get(site, ())
        if points:
            figure.add_trace(
                go.Scatter(
                    x=[at for at, _ in points],
                    y=[score for _, score in points],
                    name=arm,
                    mode="lines+markers" if len(points) <= 30 else "lines",
                    line=line_style(number),
                    hovertemplate=f"{arm}<br>round %{{x}}: %{{y:.3f}}<extra></extra>",
                )
            )
    figure.update_xaxes(tickformat="d")
    figure.update_yaxes(range=[0, 1.02])
    return figure


def cross_site_heatmap(cross: CrossSiteMatrix) -> go.Figure:
    """Return macro-F1 of every site's model (row) on every site's test images (column)."""
    figure = bare_figure("test images of", "model of", height=160 + 44 * len(cross.model_sites))
    figure.add_trace(
        shaded_cells(
            cross.macro_f1,
            cross.test_sites,
            cross.model_sites,
            text=[["" if score is None else f"{score:.2f}" for score in row] for row in cross.macro_f1],
            hover="model of %{y}, images of %{x}: %{z:.3f}",
        )
    )
    figure.update_xaxes(showgrid=False, tickangle=-35, type="category")
    figure.update_yaxes(showgrid=False, autorange="reversed", type="category")
    return figure


def reliability_curves(records: Sequence[Predictions]) -> go.Figure:
    """Return, site by site, the share called right against the stated probability, all seeds together."""
    figure = bare_figure("stated probability", "share right", height=340)
    figure.add_trace(
        go.Scatter(
            x=[0, 1],
            y=[0, 1],
            mode="lines",
            line={"color": "rgba(128,128,128,0.7)", "dash": "dot", "width": 1.5},
            showlegend=False,
            hoverinfo="skip",
        )
    )
    for number, site in enumerate(dict.fromkeys(record.test_site for record in records)):
        bins = reliability([record for record in records if record.test_site == site]).bins
        figure.add_trace(
            go.Scatter(
                x=[item.confidence for item in bins],
                y=[item.accuracy for item in bins],
                text=[str(item.num_images) for item in bins],
                name=site,
                mode="lines+markers",
                line=line_style(number),
                hovertemplate=f"{site}<br>stated %{{x:.2f}}, right %{{y:.2f}}, %{{text}} answers<extra></extra>",
            )
        )
    figure.update_xaxes(range=[0, 1.02])
    figure.update_yaxes(range=[0, 1.02])
    return figure


def _above(estimate: Estimate) -> float:
    return max(estimate.high - estimate.value, 0.0) if estimate.high is not None else 0.0


def _below(estimate: Estimate) -> float:
    return max(estimate.value - estimate.low, 0.0) if estimate.low is not None else 0.0
