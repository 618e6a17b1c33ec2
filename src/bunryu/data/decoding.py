"""Bytes to lines of text, a block at a time: byte-order marks, and which encoding a file probably has."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from bunryu.errors import ConfigError, DataError

BLOCK = 1 << 20  # bytes read and decoded at once

# Encodings that need a byte-order mark, and their marks.
_MARKED = {
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
}


def check_encoding(encoding: str) -> None:
    """Raise ConfigError if Python has no such text encoding."""
    try:
        "".encode(encoding)
        codecs.getincrementaldecoder(encoding)
    except (LookupError, ValueError):
        fix = "utf-8, utf-16, cp949 or the like"
        raise ConfigError(f"unknown encoding '{encoding}'", where="corpus.encoding", fix=fix) from None


def decoded_lines(path: Path, encoding: str | None, *, keep_undecodable: bool = False) -> Iterator[str]:
    r"""The lines of a file without their ``\n`` and without its byte-order mark, read as they are asked for.

    No more is held than a block of the file and the longest line. Lines end at ``\n`` only: U+0085,
    U+2028 and others stand inside real reviews, and a ``\r`` stays at the end of its line.

    Args:
        encoding: None for UTF-8, or UTF-16 where a byte-order mark says so.
        keep_undecodable: replace bytes that cannot be decoded by U+DC80 to U+DCFF, as Python does in file
            names, so that a reader can refuse the row and go on.

    Raises:
        DataError: if the file is empty, or cannot be read or decoded, with the line and the encoding it
            probably has; for a later block, when that block is read.
        ConfigError: if there is no such encoding.
    """
    head = next(_blocks(path, 200))
    if encoding is None:
        encoding = "utf-16" if head.startswith(_MARKED["utf-16"]) else "utf-8"
    check_encoding(encoding)
    lines = chain.from_iterable(_lines(_texts(path, encoding, head, keep_undecodable)))
    first = next(lines, None)
    if first is None:
        raise DataError("the file is empty", where=str(path))
    if "\0" in first:
        raise _wrong_encoding("NUL characters in its first line", path, 1, encoding)
    return chain([first], lines)


def _lines(texts: Iterator[str]) -> Iterator[list[str]]:
    """The lines that end in each text; last, what follows the last newline, unless that is nothing."""
    held: list[str] = []  # the parts of a line that began in an earlier text
    for text in texts:
        lines = text.split("\n")
        held.append(lines[0])
        if len(lines) > 1:
            lines[0] = "".join(held)
            held = [lines.pop()]
            yield lines
    if last := "".join(held):
        yield [last]


def _texts(path: Path, encoding: str, head: bytes, keep_undecodable: bool) -> Iterator[str]:
    """The text of each block, the first without its byte-order mark."""
    decoder = _decoder(encoding, head)
    decoder.errors = "surrogateescape" if keep_undecodable else "strict"
    line, started = 1, False
    for block in _blocks(path, BLOCK):
        _, flag = decoder.getstate()
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            good = error.object[: error.start]  # begins with what the decoder kept of the block before
            decoder.setstate((b"", flag))
            bad = error.object[error.start : error.start + 1].hex()
            line += _newlines(good, decoder)
            raise _wrong_encoding(f"byte 0x{bad} cannot be read", path, line, encoding) from None
        except ValueError:  # a decoder that does not say where
            raise _wrong_encoding("it cannot be decoded", path, line, encoding) from None
        line += text.count("\n")
        if text and not started:
            text = text.removeprefix("\ufeff")
            started = True
        yield text


def _blocks(path: Path, size: int) -> Iterator[bytes]:
    """The bytes of a file block by block; the last block is empty."""
    try:
        with path.open("rb") as file:
            while block := file.read(size):
                yield block
    except OSError as error:
        raise DataError(f"cannot read the file: {error.strerror}", where=str(path)) from None
    yield b""


def _decoder(encoding: str, head: bytes) -> codecs.IncrementalDecoder:
    """A decoder of blocks; one that needs a byte-order mark where there is none takes little-endian."""
    name = codecs.lookup(encoding).name
    if name in _MARKED and not head.startswith(_MARKED[name]):
        name = f"{name}-le"
    return codecs.getincrementaldecoder(name)()


def _newlines(good: bytes, decoder: codecs.IncrementalDecoder) -> int:
    try:
        return decoder.decode(good).count("\n")
    except UnicodeError:  # some codecs judge a text as a whole
        return good.count(b"\n")


def _wrong_encoding(what: str, path: Path, line: int, encoding: str) -> DataError:
    head = next(_blocks(path, 200))
    if head.startswith(_MARKED["utf-32"]):
        guess = "utf-32"
    elif b"\0" in head:
        guess = "utf-16-be" if head[0] == 0 else "utf-16-le"  # a header starts with an ASCII letter
    else:
        guess = "cp949" if _is_cp949(path) else "<its encoding>"
    fix = f"corpus.encoding={guess}, or convert the file to UTF-8"
    return DataError(f"the file is not {encoding}: {what}", where=f"{path}:{line}", fix=fix)


def _is_cp949(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("cp949")()
    try:
        for block in _blocks(path, BLOCK):
            decoder.decode(block, final=not block)
    except UnicodeDecodeError:
        return False
    return True
