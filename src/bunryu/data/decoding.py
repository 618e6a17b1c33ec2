"""Bytes to lines of text, a block at a time: byte-order marks, and what is probably no UTF-8."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from bunryu.errors import ConfigError, DataError

BLOCK = 1 << 20  # bytes read and decoded at once

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Encodings whose order of bytes only a mark tells.
_MARKED = {
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
}


def check_encoding(encoding: str) -> None:
    """Refuse a name that Python knows no text encoding by.

    Raises:
        ConfigError: naming the key.
    """
    try:
        "".encode(encoding)
    except (LookupError, ValueError):
        raise _unknown(encoding) from None


def decoded_lines(path: Path, encoding: str | None, *, keep_undecodable: bool = False) -> Iterator[str]:
    r"""The lines of a file without their ``\n`` and without its byte-order mark, read as they are asked for.

    No more is held than a block of the file and the longest line. Lines end at ``\n`` only: U+0085,
    U+2028 and others stand inside real reviews, and a ``\r`` stays at the end of its line.

    Args:
        path: the file.
        encoding: None for UTF-8, or UTF-16 where a byte-order mark says so.
        keep_undecodable: put U+DC80 to U+DCFF for bytes that cannot be decoded, as Python does for file
            names, so that a reader can refuse the row and go on.

    Raises:
        DataError: if it is empty, or cannot be read or decoded, with file:line and the encoding it
            probably has; what stands in a later block is found when that block is read.
        ConfigError: if there is no such encoding.
    """
    head = _head(path)
    if encoding is None:
        encoding = next((name for mark, name in _BOMS if head.startswith(mark)), "utf-8")
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
    line = 1
    started = False
    for block in _blocks(path, BLOCK):
        _, flag = decoder.getstate()
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            good = error.object[: error.start]  # with what the decoder held back of the block before
            decoder.setstate((b"", flag))
            line += _newlines(good, decoder)
            bad = error.object[error.start : error.start + 1].hex()
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


def _head(path: Path) -> bytes:
    return next(_blocks(path, 200))


def _decoder(encoding: str, head: bytes) -> codecs.IncrementalDecoder:
    """A decoder of blocks; one that wants a byte-order mark where there is none takes little-endian."""
    try:
        name = codecs.lookup(encoding).name
        return codecs.getincrementaldecoder(
            name if head.startswith(_MARKED.get(name, (b"",))) else f"{name}-le"
        )()
    except LookupError:
        raise _unknown(encoding) from None


def _newlines(good: bytes, decoder: codecs.IncrementalDecoder) -> int:
    try:
        return decoder.decode(good).count("\n")
    except UnicodeError:  # some codecs judge a text as a whole
        return good.count(b"\n")


def _unknown(encoding: str) -> ConfigError:
    return ConfigError(
        f"unknown encoding '{encoding}'", where="corpus.encoding", fix="utf-8, utf-16, cp949 or the like"
    )


def _wrong_encoding(what: str, path: Path, line: int, encoding: str) -> DataError:
    head = _head(path)
    if head.startswith(_MARKED["utf-32"]):
        guess = "utf-32"
    elif b"\0" in head:
        guess = "utf-16-be" if head[0] == 0 else "utf-16-le"  # a header starts with an ASCII letter
    else:
        guess = "cp949" if _decodes(path, "cp949") else "<its encoding>"
    return DataError(
        f"the file is not {encoding}: {what}",
        where=f"{path}:{line}",
        fix=f"corpus.encoding={guess}, or convert the file to UTF-8",
    )


def _decodes(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for block in _blocks(path, BLOCK):
            decoder.decode(block, final=not block)
    except UnicodeDecodeError:
        return False
    return True
