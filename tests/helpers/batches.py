"""A datamodule of made-up rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from bunryu.encoding.encoder import Encoded, Template
from bunryu.training.datamodule import TextDataModule

TEMPLATE = Template([(1, 0), (None, 0), (2, 0)], [(1, 0), (None, 0), (2, 0), (None, 1), (2, 1)], True)
OPTIONS = {"batch_size": 4, "max_seq_length": 6, "batching": "bucketed", "padding": "longest"}


def datamodule(rows: int, **options: Any) -> TextDataModule:
    """The same rows of one to seven tokens as every split; a row's label is its number's parity."""
    lengths, every = np.arange(rows) % 7 + 1, np.arange(rows)
    ids, offsets = np.arange(lengths.sum(), dtype=np.uint16) + 3, np.concatenate([[0], np.cumsum(lengths)])
    split = Encoded(ids, offsets, None, None, every % 2, every, TEMPLATE)
    settings: dict[str, Any] = {"num_workers": 0, **OPTIONS, **options}
    return TextDataModule(split, split, split, pad_id=0, seed=7, **settings)
