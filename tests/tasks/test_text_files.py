"""Hostile text files: each fault gets one line that names the file and what to do."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from seqbench.api import DataError
from seqbench_tasks import text_files
from seqbench_tasks.parallel_text import read_pairs, without
from seqbench_tasks.text_files import read_lines


def test_only_line_feeds_end_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("one\u2028still one\r\ntwo\x85still two\n\nlast".encode())
    assert read_lines(path) == ["one\u2028still one", "two\x85still two", "", "last"]


def test_windows_1252_keeps_its_ellipsis(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"well\x85\nfine\n")
    assert read_lines(path, "cp1252") == ["well\u2026", "fine"]


def test_packed_and_plain_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x\ny\n")
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"x\ny\n"))
    assert read_lines(tmp_path / "a") == read_lines(tmp_path / "a.gz") == ["x", "y"]


def one_line(error: pytest.ExceptionInfo[DataError], path: Path) -> bool:
    return "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty", b"", "is empty"),
        ("blank", b"\n \n", "is empty"),
        ("latin", "café\nthé".encode("latin-1"), "is not utf-8: line 1 has the byte 0xe9 at place 4"),
        # Its time would be in the name of the test, which must be the same in both workers.
        ("cut.gz", gzip.compress(b"x\n" * 999, mtime=0)[:-12], "cannot be read"),
        ("plain.gz", b"no gzip", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as error:
        read_lines(path)
    assert one_line(error, path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_lines(tmp_path / "none")


def test_a_small_archive_cannot_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "LARGEST", 1000)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(b"a" * 5000))
    with pytest.raises(DataError, match="more than 1,000 bytes"):
        read_lines(tmp_path / "bomb.gz")


def test_unequal_line_counts(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1\n2\n3\n")
    (tmp_path / "b").write_text("1\n2\n")
    with pytest.raises(DataError, match="have 3 and 2 lines") as error:
        read_pairs(tmp_path / "a", tmp_path / "b")
    assert one_line(error, tmp_path / "b")


def test_pairs_known_elsewhere_are_left_out() -> None:
    assert without([("a", "x"), ("b", "y"), ("a", "z")], [("a", "x")], [("q", "q")]) == [("b", "y"), ("a", "z")]
