"""Dotted keys of nested mappings: the one walk over them, and looking up or setting what stands at one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key that holds a value, with the value; lists and empty mappings are values."""
    for key, value in _items(node):
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def keys_of(node: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key, those of mappings included."""
    for key, value in _items(node):
        yield f"{prefix}{key}"
        yield from keys_of(value, f"{prefix}{key}.")


def value_at(node: Any, key: str, default: Any = None) -> Any:
    """What stands at a dotted key, or the default."""
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return default
        node = node[part]
    return node


def set_at(node: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted key, making the mappings on the way to it."""
    *parents, last = key.split(".")
    for part in parents:
        node = node.setdefault(part, {})
    node[last] = value


def is_below(key: str, names: Iterable[str]) -> bool:
    """Whether a dotted key is one of the names or lies below one."""
    return any(key == name or key.startswith(f"{name}.") for name in names)


def nearest(word: str, words: Iterable[str]) -> str:
    """The most similar word, or an empty string."""
    spelt = {known.lower(): known for known in words}
    found = difflib.get_close_matches(word.lower(), list(spelt), 1, cutoff=0.5)
    return spelt[found[0]] if found else ""


def _items(node: Any) -> Iterable[tuple[Any, Any]]:
    return node.items() if isinstance(node, Mapping) else ()
