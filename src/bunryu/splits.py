"""How validation is drawn from train, and what a split holds."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from typing import Any

from bunryu.errors import ConfigError
from bunryu.examples import Example

_INTEGER = re.compile(r"-?\d{1,18}")


def carve(
    train: list[Example], test: list[Example], share: float | str, seed: int
) -> tuple[list[Example], list[Example]]:
    """Split validation off train, each label by the same share, or take the test rows (``"test"``).

    The draw orders rows by a hash of (seed, row), so it depends on no library's random numbers. No label
    gives all its rows away.

    Raises:
        ConfigError: if the share leaves nothing to train on or to validate on.
    """
    if share == "test":
        if not test:
            raise ConfigError(
                "there is no test split to validate on",
                where="corpus.validation=test",
                fix="corpus.test=<file>, or a share of train",
            )
        return train, list(test)
    check_share(share, files=False)
    assert isinstance(share, float)
    by_label: dict[str, list[Example]] = {}
    for example in train:
        by_label.setdefault(example.label, []).append(example)
    chosen: set[int] = set()
    for examples in by_label.values():
        count = min(math.floor(len(examples) * share + 0.5), len(examples) - 1)
        drawn = sorted(examples, key=lambda example: draw(seed, example.row))
        chosen.update(example.row for example in drawn[:count])
    if not chosen:
        raise ConfigError(
            f"{share} of {len(train)} rows leaves none to validate on",
            where="corpus.validation",
            fix=f"corpus.validation={_smallest_share(by_label)} or more, or a file of validation rows",
        )
    return [e for e in train if e.row not in chosen], [e for e in train if e.row in chosen]


def check_share(share: float | str, *, files: bool) -> None:
    """Refuse what is neither ``test`` nor a share of train (nor, with ``files``, any other text).

    Raises:
        ConfigError: naming what may stand there.
    """
    if share == "test" or (files and isinstance(share, str)):
        return
    if not isinstance(share, float) or not 0 < share < 1:
        raise ConfigError(
            f"validation is {share!r}", where="corpus.validation", fix="a share between 0 and 1, or 'test'"
        )


def _smallest_share(by_label: dict[str, list[Example]]) -> float:
    """The smallest share, in hundredths, that takes a row of the largest label."""
    return math.ceil(50 / max(map(len, by_label.values()))) / 100


def draw(seed: int, row: int) -> bytes:
    """What orders rows at random: a hash, the same everywhere."""
    return hashlib.blake2b(f"{seed}:{row}".encode(), digest_size=8).digest()


def sort_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Distinct labels, integers by value, anything else by code point."""
    distinct = sorted(set(labels))
    if all(_INTEGER.fullmatch(label) for label in distinct):
        distinct.sort(key=int)  # stable: 1 and 01 keep their order
    return tuple(distinct)


def describe(examples: list[Example]) -> dict[str, Any]:
    """Counts of a split: rows, rows a label, empty documents, duplicates, documents of several labels."""
    labels: dict[str, int] = {}
    seen: dict[tuple[str, str | None], set[str]] = {}
    for example in examples:
        labels[example.label] = labels.get(example.label, 0) + 1
        seen.setdefault((example.text, example.pair), set()).add(example.label)
    return {
        "rows": len(examples),
        "labels": dict(sorted(labels.items())),
        "empty_documents": sum(not example.text.strip() for example in examples),
        "duplicate_documents": len(examples) - len(seen),
        "conflicting_documents": sum(len(found) > 1 for found in seen.values()),
    }
