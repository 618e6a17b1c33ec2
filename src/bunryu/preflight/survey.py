"""What a corpus looks like to a model: rows, labels, lengths in tokens, and what is cut off or unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from bunryu.data.corpus import SPLITS, Corpus
from bunryu.encoding.encoder import Encoded

PERCENTILES = (50, 90, 99, 100)
UNTRUNCATED = np.iinfo(np.int32).max
LABELS_SHOWN = 8  # of a split, the most frequent first

Rows = list[list[str]]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of equally wide columns, the first to the left and figures to the right."""
    columns = []
    for number, column in enumerate(zip(*rows, strict=True)):
        width = max(map(len, column))
        left = number in (0, len(rows[0]) - 1)  # the last holds text, or nothing to align
        columns.append([cell.ljust(width) if left else cell.rjust(width) for cell in column])
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def rows_and_labels(corpus: Corpus) -> Rows:
    """A header, and of every split its rows, the rejected rows of its file and the share of each label."""
    table = [["split", "rows", "rejected", "labels"]]
    for name in filter(corpus.split, SPLITS):
        rows, account = len(corpus.split(name)), corpus.row_counts.get(name)
        rejected = f"{sum(account.rejected.values()):,}" if account else "-"
        counts = Counter(corpus.label_ids(name))
        commonest = counts.most_common(LABELS_SHOWN)
        shown = [f"{corpus.label_names[label]} {count / rows:.1%}" for label, count in commonest]
        more = [f"and {len(counts) - LABELS_SHOWN} more"] if len(counts) > LABELS_SHOWN else []
        table.append([name, f"{rows:,}", rejected, ", ".join([*shown, *more])])
    return table


def token_lengths(splits: Mapping[str, Encoded], unknown: int | None, lengths: Sequence[int]) -> Rows:
    """A header, and of every split percentiles of its rows' tokens, unknown ones and rows that are cut.

    ``unknown`` is the id of the unknown token, None where the tokenizer has none; rows are cut at
    ``lengths``.
    """
    headings = [f"p{percent}" if percent < 100 else "max" for percent in PERCENTILES]
    table = [["split", *headings, "unknown", *(f"cut at {length}" for length in lengths), ""]]
    for name, encoded in splits.items():
        tokens = np.percentile(encoded.lengths(UNTRUNCATED), PERCENTILES, method="inverted_cdf")
        share = "-" if unknown is None else f"{encoded.share_of(unknown):.2%}"
        cut = [f"{encoded.is_cut(length).mean():.2%}" for length in lengths]
        table.append([name, *(f"{int(count)}" for count in tokens), share, *cut, ""])
    return table
