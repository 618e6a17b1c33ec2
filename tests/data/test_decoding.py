"""The lines of a file, block by block, as if it had been decoded as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bunryu.data import decoding
from bunryu.data.decoding import decoded_lines, refuse_undecodable
from bunryu.errors import ConfigError, DataError
from helpers.tables import same_folder

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp949", "iso2022_kr"]
KOREAN = "글\t라벨\n재밌다\t1\n지루하다\t0\n"
LATIN = "text\tlabel\nplain\t1\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.txt"


@same_folder
@given(
    text=st.text(st.sampled_from('가힣a1\t"\r\n\n\u2028\u0085\ufeff'), max_size=40),
    encoding=st.sampled_from(ENCODINGS),
    block=st.integers(1, 9),
)
def test_blocks_of_any_size_give_the_lines_of_the_whole(
    path: Path, text: str, encoding: str, block: int
) -> None:
    path.write_bytes(text.encode(encoding, "ignore"))
    whole = path.read_bytes().decode(encoding).lstrip("\ufeff")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "BLOCK", block)
        if whole:
            newline = "\r" if "\r" in whole and "\n" not in whole else "\n"
            assert list(decoded_lines(path, encoding)) == whole.removesuffix(newline).split(newline)
        else:
            with pytest.raises(DataError, match="the file is empty"):
                decoded_lines(path, encoding)


@pytest.mark.parametrize(
    ("raw", "encoding"),
    [
        (KOREAN.encode(), None),
        (KOREAN.encode("utf-8-sig"), None),
        (KOREAN.encode("utf-8-sig"), "utf-8"),
        (KOREAN.encode("utf-16"), None),
        (KOREAN.encode("utf-32"), None),
        (KOREAN.encode("utf-8-sig"), "cp949"),  # a mark wins
        (KOREAN.encode("utf-16"), "cp949"),
        (KOREAN.replace("\n", "\r").encode(), None),  # as old Macs end lines
        (KOREAN.encode("cp949"), "cp949"),
        (b"\xfe\xff" + KOREAN.encode("utf-16-be"), None),
        (KOREAN.encode("utf-16-le"), "utf-16"),  # no mark where one is wanted: little-endian
        (KOREAN.encode("utf-32-le"), "UTF_32"),
    ],
)
def test_marks_are_no_part_of_the_lines_and_say_the_encoding(
    path: Path, raw: bytes, encoding: str | None
) -> None:
    path.write_bytes(raw)
    assert list(decoded_lines(path, encoding)) == KOREAN.splitlines()


def test_a_file_that_is_utf_8_is_read_as_that_and_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "newer.txt"
    path.write_text(KOREAN, "utf-8")
    assert list(decoded_lines(path, "cp949")) == list(decoded_lines(path, "cp949")) == KOREAN.splitlines()
    assert caplog.messages == ["newer.txt is UTF-8 and is read as that, not as cp949"]
    path.write_bytes(b"+rAA-\tb\n")  # bytes that are ASCII say nothing
    assert list(decoded_lines(path, "utf-7")) == ["가\tb"]


def test_a_tenth_of_bad_lines_is_bearable_and_more_is_not(path: Path) -> None:
    bad = "글\n".encode("cp949")
    path.write_bytes(b"plain\n" * 18 + bad * 2)
    refuse_undecodable(path, None)
    path.write_bytes(b"plain\n" * 17 + bad * 2)
    with pytest.raises(DataError, match="the file is not utf-8: byte 0xb1 cannot be read") as refused:
        refuse_undecodable(path, None)
    assert refused.value.where == f"{path}:18"
    assert refused.value.fix.startswith("corpus.encoding=cp949")


@pytest.mark.parametrize(
    ("raw", "line", "guess"),
    [
        (b"ok\n" + "재밌다\n".encode("cp949"), 2, "cp949"),
        (b"ok\n" + "재밌다\n".encode("cp949") + b"\xff\n", 2, "<its encoding>"),  # the whole file is tried
        (LATIN.encode("utf-16-le"), 1, "utf-16-le"),
        (LATIN.encode("utf-16-be"), 1, "utf-16-be"),
    ],
)
def test_another_encoding_is_refused_by_line_and_probable_name(
    path: Path, monkeypatch: pytest.MonkeyPatch, raw: bytes, line: int, guess: str
) -> None:
    monkeypatch.setattr(decoding, "BLOCK", 3)
    path.write_bytes(raw)
    with pytest.raises(DataError, match="the file is not utf-") as refused:
        list(decoded_lines(path, None))
    assert refused.value.where == f"{path}:{line}"
    assert refused.value.fix == f"corpus.encoding={guess}, or convert the file to UTF-8"


@pytest.mark.parametrize(
    ("encoding", "bad"),
    [
        ("utf-8", b"\xff"),
        ("cp949", b"\xff"),
        ("utf-16", b"\x00\xdc\x00\x00"),
        ("utf-16-be", b"\xdc\x00\x00\x00"),
        ("utf-8", "가".encode()[:2]),  # cut off at the end of the file
        ("cp949", "가".encode("cp949")[:1]),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r"])
@pytest.mark.parametrize("block", [1, 2, 3, 5, 7, 8, 1 << 20])
def test_a_bad_byte_is_named_with_its_line_wherever_the_blocks_end(
    path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, bad: bytes, block: int, newline: str
) -> None:
    monkeypatch.setattr(decoding, "BLOCK", block)
    third = "셋\uac0a째\n" if newline == "\n" else "셋째\n"  # U+AC0A holds a newline's byte
    path.write_bytes(f"첫째\n둘째\n{third}".replace("\n", newline).encode(encoding) + bad)
    with pytest.raises(DataError) as refused:
        list(decoded_lines(path, encoding))
    assert refused.value.where == f"{path}:4"
    assert refused.value.what.startswith(f"the file is not {encoding}")


def test_a_codec_may_not_say_where_it_failed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "BLOCK", 3)
    path.write_bytes(b"a\nb\n\x1b$)\x07\x0e0!\x0fabc\n")
    with pytest.raises(DataError, match="the file is not iso2022_kr: it cannot be decoded") as refused:
        list(decoded_lines(path, "iso2022_kr"))
    assert refused.value.where.startswith(f"{path}:")


@pytest.mark.parametrize("encoding", ["utf-9", "hex", "", "a\0b", "undefined"])
def test_an_unknown_encoding_is_refused_before_a_line_is_asked_for(path: Path, encoding: str) -> None:
    path.write_bytes(b"a\n")
    with pytest.raises(ConfigError, match="unknown encoding") as refused:
        decoded_lines(path, encoding)
    assert refused.value.where == "corpus.encoding"


def test_a_line_over_many_blocks_is_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "BLOCK", 64)
    lines = ["가" * 10_000, "나", "다" * 10_000]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert list(decoded_lines(path, None)) == lines
