"""What was read from the environment for a config is a secret: remembered here, and shown nowhere."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

SHORTEST_SECRET = 4  # characters; a shorter value would be masked inside ordinary words

asked: set[str] = set()  # the variables that were read
_known: list[tuple[str, str]] = []  # spellings of secrets with their ${oc.env:NAME}, the longest first


def remember(name: str) -> None:
    """Take an environment variable's value for a secret from now on, unless it is the path of a folder.

    It is known as it is, line by line, and as Python, JSON, YAML and a URL spell it.
    """
    asked.add(name)
    value, found = os.environ.get(name, ""), set(_known)
    if os.path.isabs(value) and os.path.isdir(value):
        return
    for part in (value, *value.splitlines()):
        for spelt in (
            part,
            repr(part)[1:-1],
            json.dumps(part)[1:-1],
            part.replace("'", "''"),
            quote(part, ""),
        ):
            if len(spelt) >= SHORTEST_SECRET:
                found.add((spelt, f"${{oc.env:{name}}}"))
    _known[:] = sorted(found, key=lambda item: (-len(item[0]), item))


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


def mask_console() -> None:
    """Mask all that this process writes to standard output and error from now on, whoever writes it.

    The streams are kept, since loggers of libraries hold them already.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and "write" not in getattr(stream, "__dict__", ("write",)):
            write = stream.write
            stream.write = lambda text, write=write: write(mask(text))  # type: ignore[method-assign]
