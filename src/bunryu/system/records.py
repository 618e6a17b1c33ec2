"""Records that come from anywhere, read whole: bounded, plain, and of the types that they should have."""

from __future__ import annotations

import functools
import json
import os
import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import TypedDict

from bunryu.errors import DamagedError, ModelError
from bunryu.system.files import write_atomically

MAX_RECORD_BYTES = 8 << 20  # the longest are manifests, with a diff of a million characters
MAX_TABLE_BYTES = 1 << 29  # of metrics.csv and predictions
MAX_YAML_DEPTH = 50
MAX_INTEGER = 2**63  # what numpy, torch and a float take


def read_checked(path: Path, kind: Any) -> Any:
    """The value in a JSON or YAML file, if it is of a kind, a ``mapping`` or another type of pydantic's.

    What the kind does not name may hold any plain values. Raises DamagedError, with the key and what was
    found there, if it is not; ModelError if there is no such file.
    """
    from pydantic_core import from_json  # here, as all of pydantic: it takes a tenth of a second

    content = read_bytes(path, MAX_RECORD_BYTES)
    try:
        value = _plain_yaml(content) if path.suffix == ".yaml" else from_json(content)
        for problem in _odd_parts(value, "it"):
            raise ValueError(problem)
    except Exception as error:  # a parser's own, and those of dates and numbers that are none
        raise damaged(path, error) from None
    check_kind(path, value, kind)
    return value


def check_kind(path: Path, value: Any, kind: Any) -> None:
    """Refuse what was read from a file, as ``read_checked`` does, if it is not of a kind."""
    from pydantic import ValidationError

    try:
        _adapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key, found = ".".join(map(str, first["loc"])) or "it", reprlib.repr(first["input"])
        raise damaged(path, f"{key}: {first['msg']}; found {found}") from None


def mapping(**kinds: Any) -> Any:
    """The kind of a mapping with these keys and perhaps others; a ``NotRequired`` one may be missing."""
    return TypedDict("mapping", kinds)  # type: ignore[operator]


VERSIONED = mapping(schema=int)  # read first: which version of bunryu wrote a record


def write_record(path: Path, facts: Mapping[str, Any]) -> None:
    """Write plain values as JSON, as ``write_atomically`` does."""
    write_atomically(path, json.dumps(facts, ensure_ascii=False, indent=2) + "\n")


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes; refused as in ``read_checked``."""
    if not os.path.lexists(path):
        raise ModelError(f"there is no {path.name}", where=str(path.parent))
    if not os.path.isfile(path):  # a pipe would be waited for
        raise damaged(path, "it is no file")
    if (size := os.path.getsize(path)) > limit:
        raise damaged(path, f"it has {size:,} bytes, more than {limit:,}")
    try:
        return path.read_bytes()
    except OSError as error:
        raise damaged(path, f"it cannot be read: {error.strerror}") from None


def read_table(path: Path) -> str:
    """The text of metrics.csv or predictions; refused as in ``read_checked``."""
    return read_bytes(path, MAX_TABLE_BYTES).decode("utf-8", "replace")


def damaged(path: Path, why: object) -> DamagedError:
    return DamagedError(f"{path.name} is damaged: {' '.join(str(why).split())[:300]}", where=str(path))


@functools.cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


def _plain_yaml(content: bytes) -> Any:
    """The value in a YAML text in which no few characters stand for many."""
    text, depth, loader = content.decode("utf-8"), 0, getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for event in yaml.parse(text, loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_YAML_DEPTH or isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None):
            raise ValueError(f"it has aliases, tags or more than {MAX_YAML_DEPTH} levels")
    return yaml.load(text, loader)


def _odd_parts(value: Any, key: str) -> Iterator[str]:
    """What no record of ours holds: numbers of more than 64 bits, dates, half a surrogate pair."""
    if isinstance(value, dict | list):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _odd_parts(name, f"a key of {key}")
            yield from _odd_parts(part, f"{key}.{name}")
    elif isinstance(value, str):
        value.encode()
    elif not isinstance(value, int | float | None) or (isinstance(value, int) and abs(value) >= MAX_INTEGER):
        yield f"{key.removeprefix('it.')} is {type(value).__name__} {value!s:.30}"
