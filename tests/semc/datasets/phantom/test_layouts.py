"""Every layout the phantom writes, read back by the real readers to the same labels, groups and pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semc.datasets.cohort_table import CohortOptions, CohortTable
from semc.datasets.cohorts import COHORTS, read_cohort_table
from semc.datasets.phantom import PhantomConfig
from semc.datasets.phantom.layout_camus import write_camus
from semc.datasets.phantom.layout_fetal_brain_planes import CORE_LABELS
from semc.datasets.phantom.layouts import LAYOUTS, write_layout
from semc.datasets.phantom.still import WrittenStill
from semc.datasets.stills import read_still
from semc.exit_codes import ExitCode, SemcError

CONFIG = PhantomConfig(
    image_size=32,
    centre_names=("north", "south"),
    patients_per_centre=5,
    test_patients_per_centre=2,
    frames_per_patient=4,
    class_prior=None,
    severity=0.3,
)
COHORT_OF = {
    "manifest": ("manifest", None),
    "lp2025": ("lp2025", None),
    "fpus23": ("fpus23", "orientation"),
    "fpus23_planes": ("fpus23", "plane"),
    "camus": ("camus", None),
    "camus_older": ("camus", None),
    "fetal_planes": ("fetal_planes", None),
    "fetal_brain_planes": ("fetal_brain_planes", None),
    "african_planes": ("african_planes", None),
    "pocus": ("pocus", None),
    "pocus_repository": ("pocus_repository", None),
    "dicom": ("manifest", None),
}
NO_GROUPS = ("lp2025",)
NO_SPLITS = ("pocus", "pocus_repository", "fpus23_planes", "fetal_brain_planes")
LOSSY = (".jpg", ".avi")


def keys(table: CohortTable) -> list[tuple[str, int]]:
    """Return file and, for files of several frames, the frame of each row."""
    frames = table.images["frame"].astype(int) if "frame" in table.images else [0] * len(table.images)
    several = (".dcm", ".nii.gz", ".mhd", ".avi", ".gif")
    return [
        (file, frame if file.endswith(several) else 0)
        for file, frame in zip(table.images["file"], frames, strict=True)
    ]


def read_back(table: CohortTable, written: list[WrittenStill]) -> dict[tuple[str, int], WrittenStill]:
    """Return what was written by (file, frame), after checking that the table lists exactly that."""
    by_key = {(still.file, still.index): still for still in written}
    assert len(by_key) == len(written) == len(table.images)
    assert set(keys(table)) == set(by_key)
    return by_key


def grey(pixels: np.ndarray) -> np.ndarray:
    """Return one channel: a video's colour conversion tints grey by a level or two."""
    if pixels.ndim == 2:
        return pixels
    assert np.ptp(pixels.astype(int), axis=-1).max() <= 3
    return np.asarray(pixels.mean(axis=-1))


def test_each_layout_has_its_reader() -> None:
    assert set(COHORT_OF) == set(LAYOUTS)


def test_each_reader_has_its_layout() -> None:
    """With the round trip: no cohort is known whose reader never meets a file of its layout."""
    assert {COHORT_OF[layout][0] for layout in LAYOUTS} == set(COHORTS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_round_trip(tmp_path: Path, layout: str) -> None:
    written = write_layout(CONFIG, layout, tmp_path)
    cohort, task = COHORT_OF[layout]
    table = read_cohort_table(tmp_path, options=CohortOptions(task))
    assert table.cohort == cohort, "recognised without being told"
    by_key = read_back(table, written)
    stills = [by_key[key] for key in keys(table)]
    assert table.images["label"].tolist() == [still.label for still in stills]
    if layout in NO_GROUPS:
        assert set(table.images["group"]) == {""}
    else:
        pairs = set(zip(table.images["group"], (still.frame.patient for still in stills), strict=True))
        assert len(pairs) == len({group for group, _ in pairs}) == len({patient for _, patient in pairs})
    if layout not in NO_SPLITS:
        split = table.split_of(table.centres[0])
        held_out = [still.frame.split == "test" for still in stills]
        assert [cell == "test" for cell in split] == held_out
    for place in range(0, len(stills), max(1, len(stills) // 24)):
        file, frame = keys(table)[place]
        pixels = grey(read_still(table.root / file, frame, place))
        expected = stills[place].pixels()
        assert pixels.shape == expected.shape
        if file.endswith(LOSSY):
            assert np.abs(pixels.astype(int) - expected).mean() < 12
        else:
            np.testing.assert_array_equal(pixels, expected)


def test_both_camus_layouts_and_their_sequences_give_equal_stills(tmp_path: Path) -> None:
    """Trap 9: frames count from 1, systole may come first, and SimpleITK is row-first already."""
    pictures: list[dict[tuple[str, str], np.ndarray]] = []
    for number, (older, sequences_only) in enumerate(
        [(False, False), (True, False), (False, True), (True, True)]
    ):
        root = tmp_path / str(number)
        written = write_camus(CONFIG, root, older=older, sequences_only=sequences_only)
        by_key = read_back(read_cohort_table(root), written)
        pictures.append(
            {
                (still.frame.patient, still.label): read_still(root / file, frame, 1)
                for (file, frame), still in by_key.items()
            }
        )
    assert len(pictures[0]) == 7 * 4
    for other in pictures[1:]:
        assert other.keys() == pictures[0].keys()
        for key, pixels in pictures[0].items():
            assert pixels.shape[0] == CONFIG.image_size
            np.testing.assert_array_equal(pixels, other[key])


def test_fpus23_keeps_its_oddities(tmp_path: Path) -> None:
    write_layout(CONFIG, "fpus23", tmp_path)
    folders = sorted(path.name for path in (tmp_path / "annos" / "annotation").iterdir())
    assert len(folders) == 39
    assert "stream_huvb_aroundsbd_h" in folders
    assert "stream_huvb_aroundabd_v" not in folders
    text = (tmp_path / "annos" / "annotation" / folders[0] / "annotations.xml").read_text()
    assert text.count("<image ") == 4
    assert text.count('label="Orientation"') == 6, "two of four frames carry their tags twice"
    assert text.index("frame_000003") < text.index("frame_000000")
    views = read_cohort_table(tmp_path, "fpus23", CohortOptions("view")).images
    noisy = views[views["group"] == "stream_hdvf_aroundlegs_h"]["label"].tolist()
    assert noisy == ["legs", "abdomen", "abdomen", "abdomen"]


def test_fetal_brain_planes_have_their_core_and_marked_repeats(tmp_path: Path) -> None:
    write_layout(CONFIG, "fetal_brain_planes", tmp_path)
    table = read_cohort_table(tmp_path)
    core = table.filtered().images
    assert set(core["label"]) == set(CORE_LABELS.values()) < set(table.images["label"])
    repeats = table.images[table.images["exact_dup_of"] != ""]
    assert len(repeats) == 14 // 3, "every third of fourteen patients"
    for file, original in zip(repeats["file"], repeats["exact_dup_of"], strict=True):
        first = tmp_path / file.replace("_again", "")
        assert first.name == original.removeprefix("images/")
        assert (tmp_path / file).read_bytes() == first.read_bytes()
    assert set(table.centre_of(table.centres[0])) == {"Voluson E6 x Op. 1", "Voluson E6 x Op. 2"}


def test_the_pocus_repository_holds_clips_of_every_kind(tmp_path: Path) -> None:
    """Names differ from the disk in ending and capitals, numbers restart in each source, one clip is absent."""
    config = CONFIG.model_copy(update={"frames_per_patient": 16})
    written = write_layout(config, "pocus_repository", tmp_path)
    table = read_cohort_table(tmp_path)
    assert {Path(still.file).suffix for still in written} == {".avi", ".gif", ".png", ".jpg"}
    (tmp_path / "phantom.json").unlink()
    assert "1 clips of the table are not in the folder" in read_cohort_table(tmp_path).notes
    number = table.images["group"].str.partition("/")[2]
    assert number.nunique() == 7 < table.images["group"].nunique() == 14
    clips: dict[str, list[np.ndarray]] = {}
    for still in written:
        if still.file.endswith(".avi"):
            clips.setdefault(still.file, []).append(still.pixels().astype(int))
    assert max(map(len, clips.values())) == 6
    for file, pictures in clips.items():
        for place in range(len(pictures)):
            found = grey(read_still(table.root / file, place, 1))
            distance = [float(np.abs(found - picture).mean()) for picture in pictures]
            assert int(np.argmin(distance)) == place, "each frame is the one that was drawn there"


def test_layouts_that_do_not_exist_or_do_not_fit(tmp_path: Path) -> None:
    for name, centres in (
        ("heart", 2),
        ("fetal_planes", 5),
        ("african_planes", 6),
        ("fetal_brain_planes", 6),
    ):
        config = CONFIG.model_copy(update={"centre_names": tuple(f"c{n}" for n in range(centres))})
        with pytest.raises(SemcError) as caught:
            write_layout(config, name, tmp_path)
        assert caught.value.code is ExitCode.USAGE
