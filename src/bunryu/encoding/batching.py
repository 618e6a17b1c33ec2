"""Which rows form which batch: a function of (seed, epoch) alone, so that a run can be resumed exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from bunryu.encoding.cache import Index as Index
from bunryu.encoding.encoder import Encoded
from bunryu.errors import ConfigError

BLOCK = 50  # batches whose rows are sorted by length together; more give less padding and less shuffling

Batch = dict[str, torch.Tensor]
Part = tuple[Index, float]  # rows of a batch, and the weight of their mean loss

NO_LABEL = -100  # of rows that only fill a batch up; PyTorch's losses leave it out
NO_ROW = -1  # of such rows


def training_batches(lengths: Index, batch_size: int, batching: str, seed: int, epoch: int) -> list[Index]:
    """The batches of one epoch; every row is in exactly one, and one batch may be smaller.

    Args:
        lengths: tokens of each row.
        batching: ``random`` shuffles the rows; ``bucketed`` shuffles them, sorts them by length within
            blocks of ``BLOCK`` batches, and shuffles the batches.
        epoch: counted from 0.
    """
    random = np.random.Generator(np.random.PCG64([seed, epoch]))
    order = random.permutation(len(lengths))
    if batching == "random":
        return _cut(order, batch_size)
    batches: list[Index] = []
    for block in _cut(order, batch_size * BLOCK):
        batches += _cut(block[np.argsort(lengths[block], kind="stable")], batch_size)
    return [batches[i] for i in random.permutation(len(batches))]


def join_short_batches(batches: list[Index], processes: int) -> list[Index]:
    """The batches, with one that has fewer rows than there are processes joined to another.

    Only the smaller batch of an epoch can have so few, wherever it stands.

    Raises:
        ConfigError: if there are fewer rows than processes.
    """
    short = [batch for batch in batches if len(batch) < processes]
    whole = [batch for batch in batches if len(batch) >= processes]
    if not whole:
        what = f"there are fewer rows to train on than processes, which are {processes}"
        raise ConfigError(what, where="accelerator.devices", fix="accelerator.devices=1")
    return [*whole[:-1], np.concatenate([whole[-1], *short])] if short else whole


def part_of(batch: Index, rank: int, processes: int) -> Part:
    """One process's rows of a batch, and the weight of their mean loss.

    Each process gets every n-th row, since rows of similar length stand together. With the weights, the
    mean over the processes is the mean over the rows, even if one process has a row more than another.
    """
    part = batch[rank::processes]
    return part, len(part) * processes / len(batch)


def evaluation_batches(lengths: Index, batch_size: int) -> list[Index]:
    """Batches of rows sorted by length."""
    return _cut(np.argsort(lengths, kind="stable"), batch_size)


def bounded_batches(lengths: Index, max_tokens: int) -> list[Index]:
    """Batches of rows sorted by length, each of at most ``max_tokens`` tokens once padded, or one row."""
    order = np.argsort(lengths, kind="stable")
    cuts = [0]
    for place, length in enumerate(lengths[order].tolist()):
        if place > cuts[-1] and (place + 1 - cuts[-1]) * length > max_tokens:
            cuts.append(place)
    return [order[start:stop] for start, stop in pairwise([*cuts, len(order)]) if stop > start]


def _cut(order: Index, size: int) -> list[Index]:
    return [order[start : start + size] for start in range(0, len(order), size)]


def seed_of(seed: int, batch: int, rank: int = 0) -> int:
    """The seed for dropout in one of a run's batches, for each of the processes that share it."""
    words = [seed, batch, rank] if rank else [seed, batch]
    mixed = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return int(mixed) >> 1  # torch takes 63 bits


def padded_widths(widths: int, max_length: int) -> list[int]:
    """At most so many widths to pad batches to, ascending: ``max_length``, its half, a quarter and so on.

    Most texts are far shorter than the longest. None is padded to twice its length, except to the
    smallest width.
    """
    return sorted({math.ceil(max_length / 2**halved) for halved in range(widths)})


def padder(max_length: int, padding: str, widths: int | None = None) -> Callable[[int], int]:
    """A function from the tokens of a batch's longest row to the width that the batch is padded to.

    Args:
        max_length: tokens a row may have.
        padding: ``longest`` pads to the longest row, ``max_length`` to ``max_length``.
        widths: pad further, to the next of ``padded_widths``; None for any width.
    """
    if padding == "max_length":
        return lambda longest: max_length
    if widths is None:
        return lambda longest: longest
    choices = np.array(padded_widths(widths, max_length))
    return lambda longest: int(choices[np.searchsorted(choices, longest)])


def collator(
    encoded: Encoded,
    max_length: int,
    pad_id: int,
    padding: str,
    widths: int | None = None,
    rows: int | None = None,
) -> Callable[[Index], Batch]:
    """A function from row indices to a batch of tensors.

    The batch has ``input_ids``, ``attention_mask`` and, where the tokenizer gives them,
    ``token_type_ids``, each of shape (rows, width); ``labels`` and ``index`` of shape (rows,).

    Args:
        max_length, padding, widths: as in ``padder``.
        rows: fill smaller batches up to so many rows, with label ``NO_LABEL`` and index ``NO_ROW``; None
            for batches of any size.
    """
    lengths = encoded.lengths(max_length)
    width_of = padder(max_length, padding, widths)

    def collate(index: Index) -> Batch:
        width = width_of(int(lengths[index].max()))
        missing = max(0, rows - len(index)) if rows else 0
        # filled up with a real row: one of padding alone would have no token to attend to
        taken = np.concatenate([index, np.repeat(index[:1], missing)]) if missing else index
        arrays: dict[str, Any] = encoded.batch(taken, max_length, width, pad_id)
        batch = {name: torch.from_numpy(array) for name, array in arrays.items()}
        labels, place = encoded.labels[taken], taken
        if missing:
            labels[-missing:] = NO_LABEL
            place[-missing:] = NO_ROW
        return {**batch, "labels": torch.from_numpy(labels), "index": torch.from_numpy(place)}

    return collate
