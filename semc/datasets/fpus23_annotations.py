"""FPUS23's CVAT 1.1 XML: one stream's frames with the tags that label them, in frame order, each once.

Parsed as a stream with defusedxml (no entities, no external references). Frames are out of order in the file
and some tags are doubled; a frame whose doubled tags disagree is refused.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element, ParseError  # types only; parsing is defusedxml's

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from semc.exit_codes import ExitCode, SemcError

Pose = Literal["hdvb", "hdvf", "huvb", "huvf"]
View = Literal["abdomen", "arms", "head", "legs"]
ANNOTATIONS = "annotations.xml"
_STREAM = re.compile(
    r"stream_(?P<pose>h[du]v[bf])_(?P<sweep>aroundabd|aroundsbd|aroundarms|aroundhead|aroundlegs|longrec)_(?P<probe>[hv])"
)
_MISSPELT = {"aroundsbd": "aroundabd"}
_TAGS = {("Orientation", "Pose"): "pose", ("location", "View_fetus"): "view"}


@dataclass(frozen=True)
class Stream:
    """What a stream's name tells: `stream_<pose>_<sweep>_<probe>`."""

    name: str
    pose: str
    sweep: str
    probe: str


class Frame(BaseModel):
    """One frame of a stream, as annotated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int = Field(ge=0)
    file: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    pose: Pose | None = None
    view: View | None = None
    boxes: tuple[str, ...] = ()
    """Labels of the boxes, in file order."""


def stream_in(text: str) -> Stream | None:
    """Find a stream's name in a folder's or file's name; the one misspelt sweep is corrected in `sweep`."""
    found = _STREAM.search(text)
    if found is None:
        return None
    sweep = _MISSPELT.get(found["sweep"], found["sweep"])
    return Stream(found[0], found["pose"], sweep, found["probe"])


def read_frames(path: Path, number: int) -> list[Frame]:
    """Read one stream's annotations.

    Args:
        path: Its annotations.xml.
        number: Place of the stream among all, from 1, for messages.

    Returns:
        The frames by frame number, each once.

    Raises:
        SemcError: MANIFEST_INVALID where the XML is malformed, hostile or contradicts itself.
    """
    frames: dict[int, Frame] = {}
    try:
        for _, element in iterparse(str(path), events=("end",)):
            if element.tag == "image":
                frame = _frame(element, number)
                if frames.setdefault(frame.number, frame) != frame:
                    raise _invalid(number, "lists one frame twice, differently")
                element.clear()
    except (ParseError, DefusedXmlException, ValidationError, ValueError) as error:
        raise _invalid(number, "is not the CVAT 1.1 XML of this cohort") from error
    return [frames[key] for key in sorted(frames)]


def _frame(element: Element, number: int) -> Frame:
    values: dict[str, set[str]] = defaultdict(set)
    for tag in element.iterfind("tag"):
        for attribute in tag.iterfind("attribute"):
            name = _TAGS.get((tag.get("label", ""), attribute.get("name", "")))
            if name:
                values[name].add((attribute.text or "").strip())
    if any(len(found) > 1 for found in values.values()):
        raise _invalid(number, "gives one frame two different tags")
    return Frame.model_validate(
        {
            "number": element.get("id"),
            "file": element.get("name", ""),
            "boxes": tuple(box.get("label", "") for box in element.iterfind("box")),
            **{name: found.pop() for name, found in values.items()},
        }
    )


def _invalid(number: int, problem: str) -> SemcError:
    return SemcError(
        ExitCode.MANIFEST_INVALID, f"Annotation file {number} {problem}.", "restore it from the download"
    )
