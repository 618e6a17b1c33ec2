"""Times a sample of a split's batches while Lightning trains on them or scores them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from bunryu.encoding.batching import Batch, Index
from bunryu.encoding.encoder import Encoded
from bunryu.training.datamodule import TextDataModule

SIZES = 5  # of batches that are timed
WARM_UP_SECONDS = 5.0  # after which no further size is tried


class SampledBatches:
    """Batches for Lightning in rounds: some of a split's, at even distances in their order by padded tokens.

    The largest batch comes first, so that memory has its peak. A first round of the sample warms up; whole
    rounds after it are timed for ``seconds`` at least. ``batches`` are the rows of each of one pass.
    """

    def __init__(
        self, data: TextDataModule, split: Encoded, batches: Sequence[Index], seconds: float
    ) -> None:
        tokens = np.array(data.padded_tokens(split, batches))
        order = np.argsort(tokens, kind="stable")
        places = order[((np.arange(SIZES) + 0.5) * len(order) / SIZES).astype(int)]
        sized = list(zip(tokens.tolist(), batches, strict=True))
        self.tokens = int(tokens.sum())  # padded, of one pass
        self._largest, self._sample = sized[order[-1]], [sized[place] for place in places]
        self._seconds = seconds
        self._collate = data.collator(split)
        self._taken = 0  # tokens of all batches that Lightning has taken
        self._timed, self._elapsed = 0, 0.0  # tokens of the timed rounds and their seconds

    def __iter__(self) -> Iterator[Batch]:
        begun = now()
        yield self._batch(*self._largest)
        tried = []
        for batch in self._sample:
            tried.append(batch)
            yield self._batch(*batch)
            if now() - begun > WARM_UP_SECONDS:
                break
        yield self._batch(*tried[-1])  # Lightning takes a batch before it works on the one before
        begun = now()
        while self._elapsed <= self._seconds:
            yield from itertools.starmap(self._batch, tried)
            self._timed += sum(tokens for tokens, _ in tried)
            self._elapsed = now() - begun

    def _batch(self, tokens: int, rows: Index) -> Batch:
        self._taken += tokens
        return self._collate(rows)

    @property
    def token(self) -> float:
        """Seconds that a padded token takes."""
        return self._elapsed / self._timed

    @property
    def steady(self) -> float:
        """Seconds that the batches taken so far would have needed without any warming up."""
        return self._taken * self.token


def now() -> float:
    """Seconds, once the device has done all that it was given."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter()
