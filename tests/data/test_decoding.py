"""decoding.py: the lines of a file, block by block, as if it had been decoded as a whole."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bunryu.data import decoding
from bunryu.data.decoding import decoded_lines
from bunryu.errors import ConfigError, DataError

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp949", "iso2022_kr"]
derandomized = settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def small_blocks() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@derandomized
@given(
    text=st.text(st.sampled_from('가힣a1\t"\r\n\n\u2028\u0085\ufeff'), max_size=40),
    encoding=st.sampled_from(ENCODINGS),
    block=st.integers(1, 9),
)
def test_blocks_of_any_size_give_the_lines_of_the_whole(
    tmp_path: Path, small_blocks: pytest.MonkeyPatch, text: str, encoding: str, block: int
) -> None:
    small_blocks.setattr(decoding, "BLOCK", block)
    path = tmp_path / "a.txt"
    raw = text.encode(encoding, "ignore")
    path.write_bytes(raw)
    whole = raw.decode(encoding).removeprefix("\ufeff")
    expected = whole.removesuffix("\n").split("\n") if whole else []
    if not expected:
        with pytest.raises(DataError, match="the file is empty"):
            decoded_lines(path, encoding)
    else:
        assert list(decoded_lines(path, encoding)) == expected


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
@pytest.mark.parametrize("block", [1, 2, 3, 5, 8, 1 << 20])
def test_a_bad_byte_is_named_with_its_line_wherever_the_blocks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, bad: bytes, block: int
) -> None:
    monkeypatch.setattr(decoding, "BLOCK", block)
    path = tmp_path / "a.txt"
    path.write_bytes(
        "첫째\n둘째\n셋\uac0a째\n넷".encode(encoding) + bad
    )  # U+AC0A holds the byte of a newline
    with pytest.raises(DataError) as refused:
        list(decoded_lines(path, encoding))
    assert refused.value.where == f"{path}:4"
    assert refused.value.what.startswith(f"the file is not {encoding}: byte 0x")


def test_lines_before_a_bad_byte_are_given_out_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "BLOCK", 4)
    path = tmp_path / "a.txt"
    path.write_bytes("가\n나\n다\n".encode() + "라\n".encode("cp949"))
    lines = decoded_lines(path, None)
    assert [next(lines), next(lines)] == ["가", "나"]
    with pytest.raises(DataError) as refused:
        list(lines)
    assert (refused.value.where, refused.value.fix.partition(",")[0]) == (
        f"{path}:4",
        "corpus.encoding=<its encoding>",
    )


def test_the_whole_file_is_tried_before_cp949_is_proposed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "BLOCK", 3)
    path = tmp_path / "a.txt"
    for tail, guess in ((b"", "cp949"), (b"\xff\n", "<its encoding>")):
        path.write_bytes("가나다\n라마바\n".encode("cp949") + tail)
        with pytest.raises(DataError) as refused:
            list(decoded_lines(path, None))
        assert refused.value.fix == f"corpus.encoding={guess}, or convert the file to UTF-8"


def test_utf_16_without_a_mark_is_little_endian_where_it_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for encoding in ("utf-16", "UTF_16", "utf-32"):
        path.write_bytes("가\n나\n".encode(f"{encoding.replace('_', '-')}-le"))
        assert list(decoded_lines(path, encoding)) == ["가", "나"]


def test_a_codec_that_does_not_say_where_it_failed_is_a_data_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "BLOCK", 3)
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\nb\n\x1b$)\x07\x0e0!\x0fabc\n")
    with pytest.raises(DataError, match="the file is not iso2022_kr: it cannot be decoded") as refused:
        list(decoded_lines(path, "iso2022_kr"))
    assert refused.value.where.startswith(f"{path}:")


def test_an_unknown_encoding_is_refused_before_a_line_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\n")
    with pytest.raises(ConfigError, match="unknown encoding 'hex'"):
        decoded_lines(path, "hex")


def test_a_line_over_many_blocks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "BLOCK", 64)
    path = tmp_path / "a.txt"
    path.write_text("가" * 10_000 + "\n나\n" + "다" * 10_000, encoding="utf-8")
    assert [(line[0], len(line)) for line in decoded_lines(path, None)] == [
        ("가", 10_000),
        ("나", 1),
        ("다", 10_000),
    ]


def test_a_file_is_never_held_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    size = 16 << 20
    line = b"x" * 2047 + b"\n"
    with path.open("wb") as file:
        for _ in range(size // len(line)):
            file.write(line)
    tracemalloc.start()
    try:
        count = sum(len(found) == 2047 for found in decoded_lines(path, None))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == size // len(line)
    assert peak < size / 3
