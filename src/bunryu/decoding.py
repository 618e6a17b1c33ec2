"""Bytes to text: byte-order marks, and what a file that is not UTF-8 probably is."""

from __future__ import annotations

import codecs
from pathlib import Path

from bunryu.errors import ConfigError, DataError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def check_encoding(encoding: str) -> None:
    """Refuse a name that Python knows no text encoding by.

    Raises:
        ConfigError: naming the key.
    """
    try:
        "".encode(encoding)
    except (LookupError, ValueError):
        raise _unknown(encoding) from None


def decode(path: Path, encoding: str | None) -> str:
    """The text of a file, without its byte-order mark.

    Raises:
        DataError: if it cannot be read or decoded, with file:line and the encoding it probably has.
        ConfigError: if there is no such encoding.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the file: {error.strerror}", where=str(path)) from None
    if encoding is None:
        encoding = next((name for mark, name in _BOMS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        bad = error.object[error.start : error.start + 1].hex()
        line = _line_of(error, encoding)
        raise _wrong_encoding(f"byte 0x{bad} cannot be read", path, line, encoding, raw) from None
    except (LookupError, ValueError):
        raise _unknown(encoding) from None
    if "\0" in text.partition("\n")[0]:
        raise _wrong_encoding("NUL characters in its first line", path, 1, encoding, raw)
    return text


def _unknown(encoding: str) -> ConfigError:
    return ConfigError(
        f"unknown encoding '{encoding}'", where="corpus.encoding", fix="utf-8, utf-16, cp949 or the like"
    )


def _line_of(error: UnicodeDecodeError, encoding: str) -> int:
    good = error.object[: error.start]
    try:
        return good.decode(encoding).count("\n") + 1
    except UnicodeError:  # some codecs judge a text as a whole
        return good.count(b"\n") + 1


def _wrong_encoding(what: str, path: Path, line: int, encoding: str, raw: bytes) -> DataError:
    if raw[:4] in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        guess = "utf-32"
    elif b"\0" in raw[:200]:
        guess = "utf-16-be" if raw[0] == 0 else "utf-16-le"  # a header starts with an ASCII letter
    else:
        guess = "cp949" if _decodes(raw, "cp949") else "<its encoding>"
    return DataError(
        f"the file is not {encoding}: {what}",
        where=f"{path}:{line}",
        fix=f"corpus.encoding={guess}, or convert the file to UTF-8",
    )


def _decodes(raw: bytes, encoding: str) -> bool:
    try:
        raw.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True
