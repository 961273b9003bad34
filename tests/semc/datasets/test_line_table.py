"""A table read line by line: as the whole file's parser reads it where all is well, and no line disturbs another."""

from __future__ import annotations

from pathlib import Path

import pytest

from semc.datasets.line_table import read_lines
from semc.datasets.manifest import read_table
from semc.exit_codes import ExitCode, SemcError

GOOD = b"file,label,group\na.png,head,p1\nb.png,femur,p2\n"


def written(folder: Path, text: bytes) -> Path:
    path = folder / "manifest.csv"
    path.write_bytes(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n"),
        GOOD.replace(b",", b" ; "),
        b'file,label,group\n"a,1.png","he""ad",p1\n\n,,\nshort.png\nb.png,femur,M\xc3\xbcller\n',
        b"file,label,group\n",
    ],
)
def test_a_sound_file_is_read_as_the_other_parser_reads_it(tmp_path: Path, text: bytes) -> None:
    path = written(tmp_path, text)
    found, strict = read_lines(path), read_table(path)
    assert found.unread == ()
    assert list(found.table.columns) == list(strict.columns)
    assert list(found.table.index) == list(strict.index)
    assert found.table.to_numpy().tolist() == strict.to_numpy().tolist()


@pytest.mark.parametrize(
    "line",
    [b'c.png,"head,p3', b'c.png,"he"ad,p3', b"c.png,head,p3,more,cells", b'c.png,head,"' + b"x" * 200_000],
)
def test_a_line_that_is_no_row_is_left_out_alone(tmp_path: Path, line: bytes) -> None:
    first, *others = GOOD.splitlines(keepends=True)
    found = read_lines(written(tmp_path, b"".join([first, line, b"\n", *others])))
    assert found.unread == (2,)
    assert found.table["file"].to_dict() == {3: "a.png", 4: "b.png"}


def test_an_open_quote_ends_the_other_parsers_reading(tmp_path: Path) -> None:
    """The control: everybody below pays for one row."""
    path = written(tmp_path, GOOD.replace(b"a.png", b'"a.png'))
    assert list(read_lines(path).table["file"]) == ["b.png"]
    with pytest.raises(SemcError):
        read_table(path)


def test_bytes_that_are_no_text_stay_apart(tmp_path: Path) -> None:
    path = written(tmp_path, b"file,label,group\na.png,head,M\xfcller\nb.png,head,M\xf6ller\nc.png,head,p3\n")
    assert read_lines(path).table["group"].nunique() == 3
    with pytest.raises(SemcError):
        read_table(path)


def test_facts_about_the_site_are_refused(tmp_path: Path) -> None:
    def code(path: Path) -> ExitCode:
        with pytest.raises(SemcError) as caught:
            read_lines(path)
        return caught.value.code

    assert code(tmp_path / "none.csv") is ExitCode.DATA_NOT_FOUND
    for header in (b"", b"file,,group\n", b"file,file,group\n", b'file,"label\n'):
        assert code(written(tmp_path, header)) is ExitCode.MANIFEST_INVALID
