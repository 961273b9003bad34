"""FPUS23: streams of one 23-week fetal phantom on one device; tasks orientation, view and plane.

The group is the stream, so neighbouring frames never part. With one stream per pose or view inside the finest
centres no stream-disjoint split exists there; the default centres hold two streams of each class and train on
the probe held `h`, test on `v`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from semc.datasets.cohort_table import (
    CentreRule,
    CohortOptions,
    CohortReader,
    CohortTable,
    ViewSource,
    table_from,
)
from semc.datasets.fpus23_annotations import ANNOTATIONS, Stream, read_frames, stream_in
from semc.exit_codes import ExitCode, SemcError

TASKS = ("orientation", "view", "plane")
IMAGES = "four_poses"
PLANES = "Dataset_Plane"
PLANE_FOLDERS = ("AC_PLANE", "BPD_PLANE", "FL_PLANE", "NO_PLANE")
ANNOTATION_FOLDERS = ("annos/annotation", "annotation")
_VIEW_OF_SWEEP = {
    "aroundabd": "abdomen",
    "aroundarms": "arms",
    "aroundhead": "head",
    "aroundlegs": "legs",
}
_BY_PROBE = {"h": "train", "v": "test"}
_CENTRES = {
    "orientation": (
        CentreRule(("sweep",), "acquisition", split_column="probe", split_values=_BY_PROBE),
        CentreRule(("sweep", "probe"), "acquisition"),
        CentreRule(("stream",), "acquisition"),
    ),
    "view": (
        CentreRule(("pose",), "acquisition", split_column="probe", split_values=_BY_PROBE),
        CentreRule(("pose", "probe"), "acquisition"),
        CentreRule(("sweep",), "acquisition"),
        CentreRule(("stream",), "acquisition"),
    ),
    "plane": (CentreRule(), CentreRule(("pose",), "acquisition")),
}
_NOTES = {
    "orientation": (),
    "view": ("the view is a function of the sweep; stream hdvf_aroundlegs_h is tagged 'abdomen' by default",),
    "plane": ("patients are streams only where file names keep the stream",),
}
_ONE_PHANTOM = "one phantom on one device: centres are ways of scanning, not hospitals"


def is_fpus23(root: Path) -> bool:
    """Tell whether a folder holds the annotated streams or the plane folders."""
    if any((root / PLANES / name).is_dir() for name in PLANE_FOLDERS):
        return True
    return any(stream_in(path.name) for path in _annotated(root))


def read_fpus23(root: Path, options: CohortOptions) -> CohortTable:
    """List the frames of one task, by stream and frame number.

    Raises:
        SemcError: DATA_NOT_FOUND or MANIFEST_INVALID.
    """
    task = options.task or TASKS[0]
    records = _planes(root) if task == "plane" else _frames(root, task, options.view_source)
    return CohortTable(
        cohort="fpus23",
        task=task,
        root=root,
        images=table_from(list(records)),
        centres=_CENTRES[task],
        licence="MIT (annotations)",
        notes=(_ONE_PHANTOM, *_NOTES[task]),
    )


def _frames(root: Path, task: str, view_source: ViewSource) -> Iterator[dict[str, object]]:
    for number, folder in enumerate(_annotated(root), start=1):
        stream = stream_in(folder.name)
        if stream is None:
            raise SemcError(
                ExitCode.MANIFEST_INVALID,
                f"Annotation folder {number} is not named stream_<pose>_<sweep>_<probe>.",
                "restore the names of the download",
            )
        images = _image_folder(root, folder.name)
        for frame in read_frames(folder / ANNOTATIONS, number):
            if task == "orientation":
                label: str | None = frame.pose
            else:
                label = frame.view if view_source == "tag" else _VIEW_OF_SWEEP.get(stream.sweep)
            if label is not None:
                facts = _facts(stream)
                yield {
                    "file": f"{images}/{frame.file}",
                    "label": label,
                    "group": folder.name,
                    "frame": frame.number,
                    **facts,
                }


def _planes(root: Path) -> Iterator[dict[str, object]]:
    for name in PLANE_FOLDERS:
        folder = root / PLANES / name
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        for path in files:
            if path.name.startswith("."):
                continue
            stream = stream_in(path.name)
            yield {
                "file": f"{PLANES}/{name}/{path.name}",
                "label": name,
                "group": stream.name if stream else "",
                **_facts(stream),
            }


def _facts(stream: Stream | None) -> dict[str, object]:
    if stream is None:
        return {"stream": "", "pose": "", "sweep": "", "probe": ""}
    return {"stream": stream.name, "pose": stream.pose, "sweep": stream.sweep, "probe": stream.probe}


def _annotated(root: Path) -> list[Path]:
    """Return the folders that hold an annotation file, in name order."""
    for name in ANNOTATION_FOLDERS:
        if (root / name).is_dir():
            return sorted(path.parent for path in (root / name).glob(f"*/{ANNOTATIONS}"))
    return []


def _image_folder(root: Path, stream: str) -> str:
    """Return the folder of a stream's frames; images may lie under the corrected spelling."""
    correct = stream.replace("aroundsbd", "aroundabd")
    if not (root / IMAGES / stream).is_dir() and (root / IMAGES / correct).is_dir():
        return f"{IMAGES}/{correct}"
    return f"{IMAGES}/{stream}"


FPUS23 = CohortReader("fpus23", is_fpus23, read_fpus23, TASKS)
