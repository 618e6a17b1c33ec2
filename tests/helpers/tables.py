"""Corpora of a user's own files."""

from __future__ import annotations

from typing import Any

from bunryu.data.corpora import Table


def table(train: str, **changes: Any) -> Table:
    """A Table as ``conf/corpus/table.yaml`` has it, with half of train for validation."""
    given: dict[str, Any] = {
        "name": "table",
        "train": train,
        "validation": 0.5,
        "test": None,
        "text_column": "text",
        "label_column": "label",
        "pair_column": None,
        "encoding": None,
        "quoting": "csv",
        "split_seed": 42,
    }
    return Table(**{**given, **changes})
