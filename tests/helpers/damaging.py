"""Damage to the records of runs, models and sweeps."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

ODD: list[Any] = [
    None, True, -1, 0, 2.5, 10**30, 1e400, float("nan"), "", "x", "\x1b[31m\x00", "/" * 300, [], {}, [None],
    {"x": {}}, json.loads("[" * 120 + "]" * 120),
]  # fmt: skip
NO_RECORDS = [
    b"",
    b"null",
    b"[1]",
    b'"x"',
    b"{}",
    b"{",
    b"\xff\xfe{}",
    b"[" * 100_000,
    b"1" * 5000,
    b"a: \x00",
]
HUGE = 1 << 42  # bytes, of a file that takes none on the disk


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a value, the value itself aside."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    found = [(*path, key) for key in keys]
    return found + [deeper for key in keys for deeper in places(value[key], (*path, key))]


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


def damage(path: Path, draw: st.DrawFn) -> None:
    """Damage a record: its bytes, its length, or one of its values."""
    content = path.read_bytes()
    kinds = ["bytes", "cut", "huge", *["value"] * 5]
    kind = draw(st.sampled_from(kinds))
    if kind == "huge":
        with open(path, "r+b") as file:
            file.truncate(HUGE)
    elif kind == "bytes":
        path.write_bytes(draw(st.sampled_from(NO_RECORDS)))
    elif kind == "cut" or path.suffix not in (".json", ".yaml"):
        start = draw(st.integers(0, len(content) - 1))
        end = draw(st.integers(start, len(content)))
        path.write_bytes(
            content[:start] + draw(st.sampled_from([b"", b"9", b"\xff", b",,", b'"', b"nan"])) + content[end:]
        )
    else:
        write(
            path,
            changed(
                read(path), draw(st.sampled_from(places(read(path)))), draw(st.sampled_from([..., *ODD]))
            ),
        )


def read(path: Path) -> Any:
    text = path.read_text("utf-8")
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


def write(path: Path, value: Any) -> None:
    path.write_text(
        json.dumps(value) if path.suffix == ".json" else yaml.safe_dump(value, sort_keys=False), "utf-8"
    )
