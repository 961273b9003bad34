"""One phantom image from its place in the cohort: anatomy, speckle, receive chain, sector, overlay."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from semc.datasets.phantom.anatomy import draw_background, draw_plane
from semc.datasets.phantom.canvas import Canvas
from semc.datasets.phantom.config import RESERVED_CENTRE, PhantomConfig
from semc.datasets.phantom.overlay import draw_class_marker, draw_overlay
from semc.datasets.phantom.patients import PhantomFrame
from semc.datasets.phantom.scan import scan_geometry
from semc.datasets.phantom.speckle import log_compress, receive, speckle_envelope
from semc.datasets.phantom.style import CentreStyle, centre_style
from semc.seed import derive_seed


@lru_cache(maxsize=128)
def style_of(config: PhantomConfig, centre: str) -> CentreStyle:
    """Return the style of one of the config's centres."""
    index = config.all_centres().index(centre)
    return centre_style(config.seed, index, config.severity, reserved=centre == RESERVED_CENTRE)


def render_frame(config: PhantomConfig, frame: PhantomFrame) -> NDArray[np.uint8]:
    """Return the image [H, W] of one frame; a function of its arguments alone."""
    style = style_of(config, frame.centre)
    geometry = scan_geometry(style, config.image_size)
    frame_seed = derive_seed(config.seed, "frame", frame.patient, frame.plane, frame.frame)
    rng = np.random.Generator(np.random.SFC64(frame_seed))
    x_DB, z_DB = _move_probe(geometry.x_DB, geometry.z_DB, rng)
    canvas = Canvas(x_DB, z_DB)
    draw_background(canvas, np.random.default_rng(derive_seed(config.seed, "habitus", frame.patient)))
    plane_rng = np.random.default_rng(derive_seed(config.seed, "anatomy", frame.patient, frame.plane))
    draw_plane(canvas, frame.plane, plane_rng, config.near_miss)
    reflectivity_DB = np.exp(canvas.echo_DB * np.float32(np.log(10) / 20))
    envelope_DB, noise_DB = speckle_envelope(reflectivity_DB, style, rng)
    grey_DB = log_compress(receive(envelope_DB, noise_DB, canvas.absorption_DB, style), style)
    image_HW = np.round(geometry.convert(grey_DB) * np.float32(255)).astype(np.uint8)
    draw_overlay(image_HW, style, derive_seed(config.seed, "overlay", frame.centre), frame_seed)
    if config.overlay_leaks_class:
        label = config.classes.index(frame.plane)
        shown = len(config.classes) - 1 - label if frame.centre == RESERVED_CENTRE else label
        draw_class_marker(image_HW, shown, len(config.classes))
    return image_HW


def _move_probe(
    x_DB: NDArray[np.float32], z_DB: NDArray[np.float32], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the samples' places after this frame's shift, turn and pressure of the probe."""
    shift_x, shift_z = rng.normal(0, 0.04), rng.normal(0, 0.025)
    turn, scale = rng.normal(0, 0.12), np.exp(rng.normal(0, 0.05))
    cosine, sine = np.float32(np.cos(turn) * scale), np.float32(np.sin(turn) * scale)
    dz_DB = z_DB - np.float32(0.5)
    moved_x_DB = cosine * x_DB + sine * dz_DB + np.float32(shift_x)
    moved_z_DB = cosine * dz_DB - sine * x_DB + np.float32(0.5 + shift_z)
    return moved_x_DB, moved_z_DB
