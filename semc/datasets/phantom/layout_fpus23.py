"""FPUS23's streams and CVAT XML, drawn by the phantom: doubled tags, a misspelt stream, frames out of order.

The sweep decides the plane that is drawn, so the task `view` can be learnt; the four poses are four scanners. The
pose itself is a name only.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from semc.datasets.phantom.config import PhantomConfig
from semc.datasets.phantom.patients import PhantomFrame
from semc.datasets.phantom.still import WrittenStill

POSES = ("hdvb", "hdvf", "huvb", "huvf")
PLANE_OF_SWEEP = {
    "aroundabd": "abdomen",
    "aroundarms": "four_chamber",
    "aroundhead": "head",
    "aroundlegs": "femur",
    "longrec": "other",
}
_VIEWS = {"aroundabd": "abdomen", "aroundarms": "arms", "aroundhead": "head", "aroundlegs": "legs"}
_FOLDERS = {
    "aroundhead": "BPD_PLANE",
    "aroundabd": "AC_PLANE",
    "aroundlegs": "FL_PLANE",
    "longrec": "NO_PLANE",
}
_ABSENT, _MISSPELT = "stream_huvb_aroundabd_v", "stream_huvb_aroundabd_h"
_DOUBLED = 3
"""Every third frame carries its tags twice."""


def write_fpus23(config: PhantomConfig, out: Path) -> list[WrittenStill]:
    """Write 39 streams of `frames_per_patient` frames each; labels are the poses (task orientation)."""
    styled = config.model_copy(update={"centre_names": POSES, "reserved_centre": False})
    written = []
    for stream, pose, sweep, probe in _streams():
        stills = [
            WrittenStill(
                f"four_poses/{stream}/frame_{number:06d}.png",
                PhantomFrame(
                    pose, stream, PLANE_OF_SWEEP[sweep], number, "train" if probe == "h" else "test"
                ),
                pose,
                styled,
            )
            for number in range(config.frames_per_patient)
        ]
        for still in stills:
            still.save(out)
        images = "".join(
            _image(number, pose, _tagged_view(stream, sweep, number), probe, styled.image_size)
            for number in reversed(range(len(stills)))
        )
        path = out / "annos" / "annotation" / stream / "annotations.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f'<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'
            f"<meta><task><name>{stream}</name></task></meta>\n{images}</annotations>\n",
            encoding="utf-8",
        )
        written += stills
    return written


def write_fpus23_planes(config: PhantomConfig, out: Path) -> list[WrittenStill]:
    """Write the separate tree of planes; file names keep the stream."""
    styled = config.model_copy(update={"centre_names": POSES, "reserved_centre": False})
    written = []
    for stream, pose, sweep, _ in _streams():
        if sweep not in _FOLDERS:
            continue
        for number in range(config.frames_per_patient):
            folder = _FOLDERS[sweep]
            frame = PhantomFrame(pose, stream, PLANE_OF_SWEEP[sweep], number, "train")
            still = WrittenStill(f"Dataset_Plane/{folder}/{stream}_{number:06d}.png", frame, folder, styled)
            still.save(out)
            written.append(still)
    return written


def _streams() -> Iterator[tuple[str, str, str, str]]:
    """Yield name, pose, sweep and probe of the 39 streams, one under its upstream spelling."""
    for pose in POSES:
        for sweep in PLANE_OF_SWEEP:
            for probe in "hv":
                name = f"stream_{pose}_{sweep}_{probe}"
                if name != _ABSENT:
                    yield (
                        name.replace("aroundabd", "aroundsbd") if name == _MISSPELT else name,
                        pose,
                        sweep,
                        probe,
                    )


def _tagged_view(stream: str, sweep: str, number: int) -> str | None:
    """Return the view a frame is tagged with; one stream keeps the tag's default, as upstream."""
    if stream == "stream_hdvf_aroundlegs_h" and number > 0:
        return "abdomen"
    return _VIEWS.get(sweep)


def _image(number: int, pose: str, view: str | None, probe: str, height: int) -> str:
    tags = [("Orientation", "Pose", pose), ("Probe", "orientation", probe)]
    if view is not None:
        tags.append(("location", "View_fetus", view))
    if number % _DOUBLED == 0:
        tags += tags
    lines = "".join(
        f'<tag label="{label}" source="manual"><attribute name="{name}">{value}</attribute></tag>\n'
        for label, name, value in tags
    )
    name = f"frame_{number:06d}.png"
    return f'<image id="{number}" name="{name}" width="{height}" height="{height}">\n{lines}</image>\n'
