"""Bytes to lines of text, a block at a time: byte-order marks, and which encoding a file probably has."""

from __future__ import annotations

import codecs
import logging
import re
from collections import deque
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

from bunryu.data.unpacking import blocks
from bunryu.errors import ConfigError, DataError

log = logging.getLogger(__name__)

BLOCK = 1 << 20  # bytes read and decoded at once
HEAD = 1 << 20  # bytes that tell how lines end

# What a file may begin with, and the encoding it then has; utf-16's first mark also begins utf-32's.
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_UNDECODABLE = re.compile("[\udc80-\udcff]")  # as ``keep_undecodable`` marks bytes


def check_encoding(encoding: str) -> None:
    """Raise ConfigError if Python has no such text encoding."""
    try:
        "".encode(encoding)
        codecs.getincrementaldecoder(encoding)
    except (LookupError, ValueError):
        fix = "utf-8, utf-16, cp949 or the like"
        raise ConfigError(f"unknown encoding '{encoding}'", where="corpus.encoding", fix=fix) from None


def newlines_are_bytes(encoding: str) -> bool:
    """Whether a newline is one byte, that of ASCII; not so where there is no such encoding."""
    try:
        return "\n".encode(encoding) == b"\n"
    except (LookupError, ValueError):
        return False


def decoded_lines(path: Path, encoding: str | None, *, keep_undecodable: bool = False) -> Iterator[str]:
    r"""The lines of a file without their ``\n`` and without its byte-order mark, read as they are asked for.

    No more is held than a block of the file and the longest line. Lines end at ``\n`` only (at ``\r`` in
    a file that has no ``\n``): U+0085, U+2028 and others stand inside real reviews, and a ``\r`` stays at
    the end of its line. A byte-order mark decides the encoding, whatever is said of it.

    Args:
        encoding: None for UTF-8. A file that is UTF-8 is read as that all the same, with a warning.
        keep_undecodable: replace bytes that cannot be decoded by U+DC80 to U+DCFF, as Python does in file
            names, so that a reader can refuse the row and go on.

    Raises:
        DataError: if the file is empty, or cannot be read or decoded, with the line and the encoding it
            probably has; for a later block, when that block is read.
        ConfigError: if there is no such encoding.
    """
    check_encoding("utf-8" if encoding is None else encoding)
    head = next(blocks(path, HEAD))
    name = _encoding_of(path, encoding, head)
    newline = "\r" if b"\r" in head and b"\n" not in head else "\n"
    lines = chain.from_iterable(_lines(_texts(path, name, newline, keep_undecodable)))
    first = next(lines, None)
    if first is None:
        raise DataError("the file is empty", where=str(path))
    if "\0" in first:
        raise _wrong_encoding("NUL characters in its first line", path, 1, name)
    return chain([first], lines)


def refuse_undecodable(path: Path, encoding: str | None) -> None:
    """Raise what ``decoded_lines`` does for the first bad byte if more than a tenth of the lines have one."""
    lines = [0, 0]  # good ones, and those with a bad byte
    for line in decoded_lines(path, encoding, keep_undecodable=True):
        lines[_UNDECODABLE.search(line) is not None] += 1
    if lines[1] * 10 > sum(lines):
        deque(decoded_lines(path, encoding), maxlen=0)


def _encoding_of(path: Path, said: str | None, head: bytes) -> str:
    """The encoding by the file's byte-order mark, by its bytes if they are UTF-8, or what is said of it."""
    if marked := [name for mark, name in _MARKS.items() if head.startswith(mark)]:
        return marked[0]
    name = "utf-8" if said is None else codecs.lookup(said).name
    if said is None or name.startswith("utf-8"):
        return "utf-8"
    if newlines_are_bytes(said) and not _decodes(path, "ascii") and _decodes(path, "utf-8"):
        _warn_once(path.name, said)
        return "utf-8"
    return f"{name}-le" if name in ("utf-16", "utf-32") else said  # without a mark


@cache
def _warn_once(file: str, said: str) -> None:
    log.warning("%s is UTF-8 and is read as that, not as %s", file, said)


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


def _texts(path: Path, encoding: str, newline: str, keep_undecodable: bool) -> Iterator[str]:
    r"""The text of each block with ``\n`` for newlines, the first without its byte-order mark."""
    decoder = codecs.getincrementaldecoder(encoding)()
    decoder.errors = "surrogateescape" if keep_undecodable else "strict"
    line, started = 1, False
    for block in blocks(path, BLOCK):
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            line += error.object[: error.start].count(newline.encode(encoding))
            bad = error.object[error.start : error.start + 1].hex()
            raise _wrong_encoding(f"byte 0x{bad} cannot be read", path, line, encoding) from None
        except ValueError:  # a decoder that does not say where
            raise _wrong_encoding("it cannot be decoded", path, line, encoding) from None
        text = text.replace("\r", "\n") if newline == "\r" else text
        line += text.count("\n")
        if not started:
            text = text.lstrip("\ufeff")
            started = text != ""
        yield text


def _wrong_encoding(what: str, path: Path, line: int, encoding: str) -> DataError:
    head = next(blocks(path, 200))
    if b"\0" in head:
        guess = "utf-16-be" if head[0] == 0 else "utf-16-le"  # a header starts with an ASCII letter
    else:
        guess = "cp949" if _decodes(path, "cp949") else "<its encoding>"
    fix = f"corpus.encoding={guess}, or convert the file to UTF-8"
    return DataError(f"the file is not {encoding}: {what}", where=f"{path}:{line}", fix=fix)


def _decodes(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for block in blocks(path, BLOCK):
            decoder.decode(block, final=not block)
    except UnicodeDecodeError:
        return False
    return True
