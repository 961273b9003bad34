from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semc.config import DataConfig, SiteDataConfig
from semc.datasets import decode_image
from semc.datasets.decode import check_header
from semc.datasets.sample import SourceRow
from semc.exit_codes import ExitCode, SemcError

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=2)


def data(mode: str = "any") -> DataConfig:
    return DataConfig.model_validate({"classes": ("a", "b"), "image_mode": mode})


def row(path: Path) -> SourceRow:
    return SourceRow(9, path, 0, "g", None, "", "", "", 0)


def site(path: Path, max_pixels: int = 10_000) -> SiteDataConfig:
    return SiteDataConfig(root=path.parent, max_pixels=max_pixels)


def saved(tmp_path: Path, image: Image.Image, name: str = "secret.png") -> Path:
    image.save(tmp_path / name)
    return tmp_path / name


def refused(path: Path, code: ExitCode, mode: str = "any", max_pixels: int = 10_000) -> None:
    with pytest.raises(SemcError, match="Row 9") as caught:
        decode_image(row(path), data(mode), site(path, max_pixels))
    assert caught.value.code is code
    assert "secret" not in str(caught.value)


def test_grey_colour_palette_and_opaque_alpha(tmp_path: Path) -> None:
    for image, expected in (
        (Image.fromarray(GREY), GREY),
        (Image.fromarray(COLOUR), COLOUR),
        (Image.fromarray(GREY).convert("RGB"), GREY),
        (Image.fromarray(COLOUR).convert("RGBA"), COLOUR),
        (Image.fromarray(GREY).convert("P"), GREY),
    ):
        path = saved(tmp_path, image)
        pixels = decode_image(row(path), data(), site(path))
        assert pixels.dtype == np.uint8
        np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("mode", ["I;16", "1", "LA", "F", "CMYK"])
def test_other_pixel_modes_are_refused(tmp_path: Path, mode: str) -> None:
    name = "secret.png" if mode in ("I;16", "1", "LA") else "secret.tiff"
    image = Image.fromarray(GREY.astype(np.uint16)) if mode == "I;16" else Image.fromarray(GREY).convert(mode)
    refused(saved(tmp_path, image, name), ExitCode.IMAGE_MODE)


def test_a_transparent_image_is_refused(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR).convert("RGBA")
    image.putpixel((0, 0), (1, 2, 3, 200))
    refused(saved(tmp_path, image), ExitCode.IMAGE_MODE)


def test_the_study_decides_between_grey_and_colour(tmp_path: Path) -> None:
    colour, grey = (
        saved(tmp_path, Image.fromarray(COLOUR), "c.png"),
        saved(tmp_path, Image.fromarray(GREY), "g.png"),
    )
    refused(colour, ExitCode.IMAGE_MODE, "grey")
    refused(grey, ExitCode.IMAGE_MODE, "rgb")
    assert decode_image(row(colour), data("rgb"), site(colour)).ndim == 3
    assert decode_image(row(grey), data("grey"), site(grey)).ndim == 2


def test_a_header_check_sees_modes_and_sizes_but_not_damage(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(GREY))
    path.write_bytes(path.read_bytes()[:-30])
    check_header(row(path), data(), site(path))
    refused(path, ExitCode.DATA_UNREADABLE)
    with pytest.raises(SemcError):
        check_header(row(path), data("rgb"), site(path))


def test_bombs_and_other_files_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("L", (64, 17)))
    refused(path, ExitCode.DATA_UNREADABLE, max_pixels=1024)
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    refused(path, ExitCode.DATA_UNREADABLE)
    path.write_bytes(b"")
    refused(path, ExitCode.DATA_UNREADABLE)
    path.unlink()
    refused(path, ExitCode.DATA_UNREADABLE)


def test_a_decompression_bomb_of_pillows_own_measure_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, Image.fromarray(GREY))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    refused(path, ExitCode.DATA_UNREADABLE)


def test_a_cine_loop_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.gif"
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    refused(path, ExitCode.DATA_UNREADABLE)
