"""Refusals, and changes that lead to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import pytest
from safetensors.torch import load_file, save_file

from bunryu import cli

Refusal = TypeVar("Refusal", bound=BaseException)


def refused(kind: type[Refusal], action: Callable[..., Any], *arguments: Any, **keywords: Any) -> Refusal:
    """The error that a call raises."""
    with pytest.raises(kind) as caught:
        action(*arguments, **keywords)
    return caught.value


def error_of(code: int, *arguments: object) -> str:
    """What a command line that ends with this exit code says on standard error."""
    with redirect_stderr(StringIO()) as said:
        assert cli.run([str(argument) for argument in arguments]) == code
    return said.getvalue()


def edit_json(path: Path, change: Callable[[Any], Any]) -> None:
    """Change what a file holds, or replace it by what ``change`` returns."""
    facts = json.loads(path.read_text("utf-8"))
    changed = change(facts)
    path.write_text(json.dumps(facts if changed is None else changed), "utf-8")


def edit_weights(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
