"""What was read from the environment for a config is a secret: remembered here, and shown nowhere."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

SHORTEST_SECRET = 4  # characters; a shorter value would be masked inside ordinary words

asked: set[str] = set()  # the variables that were read
_known: list[tuple[str, str]] = []  # how secrets are spelt, each with its ${oc.env:NAME}; the longest first


def remember(name: str) -> str:
    """The name of an environment variable, whose value is a secret from now on; a folder's path is none."""
    asked.add(name)
    value, found = os.environ.get(name, ""), set(_known)
    is_place = os.path.isabs(value) and os.path.isdir(value)
    for text in () if is_place else (value, *value.splitlines()):
        spelt = text, repr(text)[1:-1], json.dumps(text)[1:-1], text.replace("'", "''"), quote(text, "")
        found |= {(each, f"${{oc.env:{name}}}") for each in spelt if len(each) >= SHORTEST_SECRET}
    _known[:] = sorted(found, key=lambda item: (-len(item[0]), item))
    return name


def mask(facts: Any) -> Any:
    """The facts with every secret in their texts replaced by its ``${oc.env:NAME}``."""
    if isinstance(facts, str):
        for value, written in _known:
            facts = facts.replace(value, written)
    elif isinstance(facts, Mapping):
        return {key: mask(value) for key, value in facts.items()}
    elif isinstance(facts, list):
        return [mask(value) for value in facts]
    return facts


def mask_streams(*streams: Any) -> None:
    """Mask all that is written to open text files from now on, by libraries that hold them, too."""
    for stream in streams:
        if "write" not in getattr(stream, "__dict__", ("write",)):  # masked already, or closed
            stream.write = lambda text, write=stream.write: write(mask(text))
