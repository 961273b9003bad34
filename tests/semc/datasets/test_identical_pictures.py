from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from semc.datasets.duplicates import identical_files
from semc.datasets.identical_pictures import identical_pictures
from semc.datasets.sample import SourceRow


def row(number: int, path: Path, frame: int = 0) -> SourceRow:
    return SourceRow(number, path, 0, f"p{number}", None, "", "", "", frame)


def indices(sets: list[list[SourceRow]]) -> list[list[int]]:
    return [[found.index for found in same] for same in sets]


def test_equal_pixels_in_other_files_are_found(tmp_path: Path) -> None:
    """Control: compared by bytes, no two of these files are equal."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    named = PngInfo()
    named.add_text("Comment", "written again")
    picture.save(tmp_path / "2.png")
    picture.save(tmp_path / "3.png", pnginfo=named)
    picture.save(tmp_path / "4.bmp")
    picture.convert("RGB").save(tmp_path / "5.png")
    pixels[3, 4] ^= 1
    Image.fromarray(pixels).save(tmp_path / "6.png")
    Image.fromarray(pixels.reshape(20, 24)).save(tmp_path / "7.png")
    rows = [row(int(path.stem), path) for path in sorted(tmp_path.iterdir())]
    assert indices(identical_pictures(rows)) == [[2, 3, 4, 5]]
    assert identical_files(rows) == []


def test_frames_of_one_file_are_other_pictures(tmp_path: Path) -> None:
    first, second = (Image.fromarray(np.full((16, 16), value, np.uint8)) for value in (10, 200))
    first.save(tmp_path / "loop.gif", save_all=True, append_images=[second])
    second.save(tmp_path / "still.png")
    rows = [row(2, tmp_path / "loop.gif"), row(3, tmp_path / "loop.gif", 1), row(4, tmp_path / "still.png")]
    assert indices(identical_pictures(rows)) == [[3, 4]]


def test_what_cannot_be_decoded_is_compared_by_its_bytes(tmp_path: Path) -> None:
    for number, content in enumerate((b"broken", b"damage", b"broken")):
        (tmp_path / f"{number}.png").write_bytes(content)
    rows = [row(number, tmp_path / f"{number}.png") for number in range(3)]
    assert indices(identical_pictures(rows)) == [[0, 2]]
