from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from semc.datasets.cohort_table import CohortOptions, CohortTable
from semc.datasets.fpus23 import is_fpus23, read_fpus23
from semc.datasets.fpus23_annotations import read_frames, stream_in
from semc.exit_codes import ExitCode, SemcError

REAL = Path(__file__).parents[4].parent / "shared" / "data" / "fpus23_annotations"
needs_real = [
    pytest.mark.real_data,
    pytest.mark.skipif(not REAL.is_dir(), reason="no FPUS23 annotations beside the checkout"),
]


@cache
def real(task: str, view_source: str = "tag") -> CohortTable:
    return read_fpus23(REAL, CohortOptions(task, view_source))  # type: ignore[arg-type]


def annotations(tmp_path: Path, images: str) -> Path:
    path = tmp_path / "annotations.xml"
    path.write_text(f'<?xml version="1.0"?>\n<annotations><version>1.1</version>{images}</annotations>')
    return path


def tag(label: str, attribute: str, value: str) -> str:
    return f'<tag label="{label}"><attribute name="{attribute}">{value}</attribute></tag>'


def test_stream_names_and_the_misspelt_one() -> None:
    stream = stream_in("stream_huvb_aroundsbd_h")
    assert stream is not None
    assert (stream.name, stream.pose, stream.sweep, stream.probe) == (
        "stream_huvb_aroundsbd_h",
        "huvb",
        "aroundabd",
        "h",
    )
    assert stream_in("x_stream_hdvf_longrec_v_frame_000003.png") is not None
    assert stream_in("stream_hdvv_longrec_v") is None


def test_frames_are_sorted_and_doubled_tags_are_one(tmp_path: Path) -> None:
    pose, view = tag("Orientation", "Pose", "hdvb"), tag("location", "View_fetus", "arms")
    path = annotations(
        tmp_path,
        f'<image id="2" name="frame_000002.png">{pose}{pose}{view}</image>'
        f'<image id="0" name="frame_000000.png"><box label="arm"/><box label="head"/>{pose}</image>'
        f'<image id="0" name="frame_000000.png"><box label="arm"/><box label="head"/>{pose}</image>',
    )
    first, second = read_frames(path, 1)
    assert (first.number, first.pose, first.view, first.boxes) == (0, "hdvb", None, ("arm", "head"))
    assert (second.number, second.pose, second.view) == (2, "hdvb", "arms")


@pytest.mark.parametrize(
    "images",
    [
        '<image id="0" name="f.png">'
        + tag("Orientation", "Pose", "hdvb")
        + tag("Orientation", "Pose", "huvf"),
        '<image id="0" name="f.png">' + tag("Orientation", "Pose", "secret"),
        '<image id="-1" name="f.png">',
        '<image id="0" name="../secret.png">',
        '<image id="0" name="a.png"></image><image id="0" name="b.png">',
    ],
    ids=["two poses", "unknown pose", "negative frame", "climbing name", "one frame, two names"],
)
def test_contradictions_are_refused_without_their_text(tmp_path: Path, images: str) -> None:
    with pytest.raises(SemcError, match="Annotation file 7") as caught:
        read_frames(annotations(tmp_path, images + "</image>"), 7)
    assert caught.value.code is ExitCode.MANIFEST_INVALID
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        "<annotations><image id='0' name='a.png'></annotations>",
        '<!DOCTYPE a [<!ENTITY e "x">]><annotations><image id="0" name="&e;"/></annotations>',
        '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/hostname">]><annotations>&e;</annotations>',
    ],
    ids=["malformed", "entity", "external entity"],
)
def test_malformed_and_hostile_xml_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "annotations.xml"
    path.write_text(content)
    with pytest.raises(SemcError) as caught:
        read_frames(path, 1)
    assert caught.value.code is ExitCode.MANIFEST_INVALID


class TestRealAnnotations:
    pytestmark = needs_real

    def test_unique_frames_and_poses(self) -> None:
        """Trap 1: 15,728 orientation tags stand on 15,113 frames; one row a frame."""
        images = real("orientation").images
        assert is_fpus23(REAL)
        assert len(images) == 15_113
        assert len(set(zip(images["group"], images["frame"], strict=True))) == 15_113
        assert images["file"].is_unique
        assert (images["label"] == images["pose"]).all()
        per_stream = images["group"].value_counts()
        assert (len(per_stream), per_stream.min(), per_stream.max()) == (39, 173, 1083)
        for _, frames in images.groupby("group")["frame"]:
            assert frames.astype(int).is_monotonic_increasing

    def test_views_by_tag_and_by_folder(self) -> None:
        """Trap 3 and the label noise of hdvf_aroundlegs_h: its tag is a default."""
        by_tag = real("view").images
        assert dict(Counter(by_tag["label"])) == {"head": 3003, "abdomen": 2526, "legs": 2159, "arms": 1861}
        noisy = by_tag[by_tag["group"] == "stream_hdvf_aroundlegs_h"]["label"]
        assert dict(Counter(noisy)) == {"abdomen": 284, "legs": 1}
        others = by_tag[by_tag["group"] != "stream_hdvf_aroundlegs_h"]
        assert (others.groupby("sweep")["label"].nunique() == 1).all()
        by_folder = real("view", "folder").images
        assert len(by_folder) == 9_550, "one frame of an around-sweep carries no tag"
        assert (by_folder.groupby("sweep")["label"].nunique() == 1).all()

    def test_boxes_and_absent_tags(self) -> None:
        boxes: Counter[str] = Counter()
        without = 0
        for number, folder in enumerate(sorted((REAL / "annotation").iterdir())):
            for frame in read_frames(folder / "annotations.xml", number):
                boxes.update(frame.boxes)
                without += not frame.boxes
        assert dict(boxes) == {"abdomen": 6435, "arm": 4853, "legs": 4572, "head": 4370}
        assert without == 5_658

    def test_centres_of_both_tasks(self) -> None:
        """Trap 2: 39 streams are 10 centres of sweep and probe, nine with four poses."""
        table = real("orientation")
        poses = table.images.groupby(table.centre_of(table.centre_rule(("sweep", "probe"))))[
            "label"
        ].nunique()
        assert dict(poses) == {name: 3 if name == "aroundabd x v" else 4 for name in poses.index}
        assert len(poses) == 10
        assert set(table.centre_of(table.centres[0])) == {
            "aroundabd",
            "aroundarms",
            "aroundhead",
            "aroundlegs",
            "longrec",
        }
        views = real("view")
        seen = views.images.groupby(views.centre_of(views.centre_rule(("pose", "probe"))))["label"].agg(set)
        assert len(seen) == 8
        assert seen["huvb x v"] == {"head", "legs", "arms"}
        assert (views.images.groupby("sweep")["label"].nunique().drop("aroundlegs") == 1).all()

    def test_default_centres_train_and_test_on_other_streams(self) -> None:
        for task in ("orientation", "view"):
            table = real(task)
            images = table.images.assign(
                centre=table.centre_of(table.centres[0]), split=table.split_of(table.centres[0])
            )
            assert set(images["split"]) == {"train", "test"}
            assert (images.groupby("group")["split"].nunique() == 1).all()
            trained = images[images["split"] == "train"].groupby("centre")["label"].nunique()
            assert (trained == 4).all()
