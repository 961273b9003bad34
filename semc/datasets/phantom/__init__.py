"""Procedural ultrasound phantom: the embedded default data; synthetic, nothing clinical."""

from semc.datasets.phantom.anatomy import PLANES
from semc.datasets.phantom.config import DEFAULT_SEVERITY, RESERVED_CENTRE, PhantomConfig
from semc.datasets.phantom.patients import PhantomFrame, class_shares, plan_centre
from semc.datasets.phantom.render import render_frame, style_of
from semc.datasets.phantom.style import CentreStyle, centre_style
from semc.datasets.phantom.write import describe_phantom, write_phantom

__all__ = [
    "DEFAULT_SEVERITY",
    "PLANES",
    "RESERVED_CENTRE",
    "CentreStyle",
    "PhantomConfig",
    "PhantomFrame",
    "centre_style",
    "class_shares",
    "describe_phantom",
    "plan_centre",
    "render_frame",
    "style_of",
    "write_phantom",
]
