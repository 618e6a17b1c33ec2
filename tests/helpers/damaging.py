"""Damage to the records of runs, models and sweeps."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

ODD: list[Any] = [
    None, True, -1, 0, 2.5, 10**30, 1e400, float("nan"), "", "x", "\x1b[31m\x00", "/" * 300, [], {}, [None],
    {"x": {}}, json.loads("[" * 120 + "]" * 120),
]  # fmt: skip
NO_RECORDS = [b"", b"null", b"[1]", b"{}", b"{", b"\xff\xfe{}", b"[" * 100_000, b"1" * 5000, b"a: &a [*a]"]
INSERTED = [b"", b"9", b"\xff", b",,", b'"', b"nan"]
HUGE = 1 << 42  # bytes, of a file that takes none on the disk


@contextmanager
def restored(*paths: Path) -> Iterator[None]:
    """Leave files as they were before."""
    before = {path: path.read_bytes() for path in paths}
    try:
        yield
    finally:
        for path, content in before.items():
            path.write_bytes(content)


def places(value: Any, *path: Any) -> list[tuple[Any, ...]]:
    """Where something stands in a value, the value itself aside."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    found: list[tuple[Any, ...]] = [(*path, key) for key in keys]
    return found + [deeper for key in keys for deeper in places(value[key], *path, key)]


def changed(value: Any, place: tuple[Any, ...], odd: Any) -> Any:
    """A copy with something odd in a place; without what stands there if that is ``...``."""
    value = copy.deepcopy(value)
    node = value
    for key in place[:-1]:
        node = node[key]
    if odd is ...:
        del node[place[-1]]
    else:
        node[place[-1]] = odd
    return value


@st.composite
def damaged(draw: st.DrawFn, path: Path) -> tuple[Any, ...]:
    """Damage a record: its bytes, its length, or one of its values; what was done."""
    content, kind = path.read_bytes(), draw(st.sampled_from(["bytes", "huge", "cut", *["value"] * 5]))
    if kind == "huge":
        with open(path, "r+b") as file:
            file.truncate(HUGE)
        return (kind,)
    if kind == "bytes":
        path.write_bytes(odd := draw(st.sampled_from(NO_RECORDS)))
        return kind, odd[:20]
    if kind == "cut" or path.suffix not in (".json", ".yaml"):
        start, inserted = draw(st.integers(0, len(content))), draw(st.sampled_from(INSERTED))
        end = draw(st.integers(start, len(content)))
        path.write_bytes(content[:start] + inserted + content[end:])
        return kind, start, end, inserted
    value = json.loads(content) if path.suffix == ".json" else yaml.safe_load(content)
    place, odd = draw(st.sampled_from(places(value))), draw(st.sampled_from([..., *ODD]))
    value = changed(value, place, odd)
    path.write_text(json.dumps(value) if path.suffix == ".json" else yaml.safe_dump(value), "utf-8")
    return kind, place, odd
