"""Corpora of a user's own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from bunryu.data.corpora import Table

# Each example writes its files anew, so examples may share a folder.
same_folder = settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def write(path: Path, *rows: tuple[object, ...], header: str = "text\tlabel") -> str:
    """Write a tsv file; returns its path."""
    lines = [header, *("\t".join(map(str, row)) for row in rows)]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def table(train: str, **changes: Any) -> Table:
    """A Table as ``conf/corpus/table.yaml`` has it, with half of train for validation."""
    given: dict[str, Any] = {
        "name": "table", "validation": 0.5, "test": None, "text_column": "text", "label_column": "label",
        "pair_column": None, "encoding": None, "quoting": "csv", "split_seed": 42,
    }  # fmt: skip
    return Table(train=train, **{**given, **changes})
