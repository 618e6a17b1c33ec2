"""Batches: every row once an epoch, an order of (seed, epoch) alone, little padding, the same losses."""

from __future__ import annotations

import math
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertTokenizer

from bunryu.data.cleaner import NO_CLEANING
from bunryu.encoding.batching import (
    NO_LABEL,
    NO_ROW,
    bounded_batches,
    collator,
    evaluation_batches,
    join_short_batches,
    padded_widths,
    part_of,
    seed_of,
    training_batches,
)
from bunryu.encoding.encoder import Encoded, Encoder
from bunryu.errors import ConfigError


def nsmc_like(rows: int = 20_000) -> np.ndarray:
    """Token counts spread like NSMC's with KcBERT's vocabulary."""
    random = np.random.Generator(np.random.PCG64(0))
    short = random.lognormal(np.log(14), 0.5, rows)
    long = random.lognormal(np.log(45), 0.35, rows)
    lengths = np.where(random.random(rows) < 0.14, long, short)
    return np.clip(lengths.astype(np.int64), 3, 80)


def waste(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """Tokens computed per real token when each batch is padded to its longest row."""
    return float(sum(len(index) * lengths[index].max() for index in batches) / lengths.sum())


def rows_of(batches: list[np.ndarray]) -> list[list[int]]:
    return [index.tolist() for index in batches]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(lengths=st.lists(st.integers(1, 60), max_size=80), max_tokens=st.integers(1, 200))
def test_bounded_batches_hold_every_row_once_and_never_too_many_tokens(
    lengths: list[int], max_tokens: int
) -> None:
    array = np.array(lengths, dtype=np.int64)
    batches = bounded_batches(array, max_tokens)
    assert sorted(chain.from_iterable(rows_of(batches))) == list(range(len(lengths)))
    assert [length for index in batches for length in array[index]] == sorted(lengths)
    for index in batches:
        assert len(index) == 1 or len(index) * array[index].max() <= max_tokens
    for index, following in pairwise(batches):  # none is cut before it has to be
        assert (len(index) + 1) * array[following[0]] > max_tokens


def test_rows_beyond_the_bound_go_alone_and_equals_keep_their_order() -> None:
    lengths = np.array([300, 4, 900, 4, 4])
    assert rows_of(bounded_batches(lengths, 8)) == [[1, 3], [4], [0], [2]]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 700),
    batch_size=st.integers(1, 40),
    batching=st.sampled_from(["bucketed", "random"]),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 99),
)
def test_every_row_once_an_epoch_and_one_short_batch_at_most(
    rows: int, batch_size: int, batching: str, seed: int, epoch: int
) -> None:
    lengths = nsmc_like(700)[:rows]
    for batches in (
        training_batches(lengths, batch_size, batching, seed, epoch),
        evaluation_batches(lengths, batch_size),
    ):
        assert sorted(chain.from_iterable(rows_of(batches))) == list(range(rows))
        assert len(batches) == math.ceil(rows / batch_size)
        sizes = sorted(len(index) for index in batches)
        assert sizes[1:] == [batch_size] * (len(batches) - 1)
        assert sizes[0] == (rows % batch_size or batch_size)


@pytest.mark.parametrize("batching", ["bucketed", "random"])
def test_the_order_is_a_pure_function_of_seed_and_epoch(batching: str) -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        return rows_of(training_batches(lengths, 16, batching, seed, epoch))

    lengths = nsmc_like(500)
    first = order(7, 0)
    np.random.seed(3)  # nobody else's random numbers matter
    torch.manual_seed(3)
    assert order(7, 0) == first
    assert order(7, 1) != first
    assert order(8, 0) not in (first, order(7, 1))  # (seed, epoch) is not their sum


def test_the_order_is_the_recorded_one() -> None:
    # Resuming and reproducing rest on it: a change here is a change of every recorded run.
    lengths = np.array([3, 9, 4, 8, 5, 7, 6])
    assert rows_of(training_batches(lengths, 2, "random", 7, 0)) == [[0, 5], [6, 2], [4, 1], [3]]
    assert rows_of(training_batches(lengths, 2, "bucketed", 7, 0)) == [[5, 3], [0, 2], [1], [4, 6]]


def test_padding_wastes_little_on_reviews() -> None:
    lengths = nsmc_like()
    for epoch in range(3):
        assert waste(lengths, training_batches(lengths, 32, "bucketed", 7, epoch)) < 1.15
    assert waste(lengths, evaluation_batches(lengths, 32)) < 1.15
    assert waste(lengths, training_batches(lengths, 32, "random", 7, 0)) > 2
    # Batches themselves come in any order of length, not from short to long.
    means = [lengths[i].mean() for i in training_batches(lengths, 32, "bucketed", 7, 0)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.5


def test_evaluation_goes_by_length_and_ties_by_row() -> None:
    assert rows_of(evaluation_batches(np.array([5, 3, 5, 4, 3]), 2)) == [[1, 4], [3, 0], [2]]


def test_seeds_of_batches_differ_and_fit_torch() -> None:
    seeds = [seed_of(seed, batch) for seed in (0, 1, 7, 2**32 - 1) for batch in range(500)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 0
    assert max(seeds) < 2**63
    for seed in (min(seeds), max(seeds)):
        assert torch.manual_seed(seed).initial_seed() == seed


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
TOKENIZER = BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)}, do_lower_case=False)


@pytest.fixture
def reviews(tmp_path: Path) -> tuple[list[str], list[int], Encoded]:
    random = np.random.Generator(np.random.PCG64(1))
    texts = [" ".join(random.choice(list("abcdefgh"), count)) for count in nsmc_like(320)]
    labels = [int("a" in text) for text in texts]
    encoder = Encoder(TOKENIZER, NO_CLEANING, tmp_path, overwrite=False)
    return texts, labels, encoder.encode(texts, None, labels, list(range(10, 330)))[0]


@pytest.mark.parametrize("padding", ["longest", "max_length"])
def test_a_batch_holds_its_rows_and_their_padding(
    reviews: tuple[list[str], list[int], Encoded], padding: str
) -> None:
    texts, labels, encoded = reviews
    index = np.array([7, 0, 31])
    batch = collator(encoded, 24, TOKENIZER.pad_token_id, padding)(index)
    theirs = TOKENIZER(
        [texts[i] for i in index], truncation=True, max_length=24, padding=padding, return_tensors="pt"
    )
    assert set(batch) == {"input_ids", "attention_mask", "token_type_ids", "labels", "index"}
    for name, expected in theirs.items():
        assert torch.equal(batch[name], expected), name
        assert batch[name].dtype == torch.int64
    assert batch["labels"].tolist() == [labels[i] for i in index]
    assert batch["index"].tolist() == [7, 0, 31]


@pytest.mark.parametrize(
    ("widths", "longest", "expected"),
    [(4, 128, [16, 32, 64, 128]), (1, 128, [128]), (2, 9, [5, 9]), (9, 5, [1, 2, 3, 5])],
)
def test_padded_widths_halve_the_longest_row(widths: int, longest: int, expected: list[int]) -> None:
    assert padded_widths(widths, longest) == expected


def test_four_widths_pad_reviews_to_less_than_twice_their_tokens() -> None:
    lengths, steps = nsmc_like(), np.array(padded_widths(4, 128))
    batches = training_batches(lengths, 32, "bucketed", 7, 0)
    computed = sum(len(index) * steps[np.searchsorted(steps, lengths[index].max())] for index in batches)
    assert waste(lengths, batches) < computed / lengths.sum() < 1.7


@pytest.mark.parametrize("padding", ["longest", "max_length"])
@pytest.mark.parametrize("index", [[7], [7, 0, 31], list(range(8))])
def test_shapes_are_the_padded_widths_and_what_fills_up_has_no_label(
    reviews: tuple[list[str], list[int], Encoded], index: list[int], padding: str
) -> None:
    _, labels, encoded = reviews
    rows = np.array(index)
    collate = collator(encoded, 24, TOKENIZER.pad_token_id, padding)
    plain, batch = collate(rows), collator(encoded, 24, TOKENIZER.pad_token_id, padding, 3, 8)(rows)
    width = min(step for step in (6, 12, 24) if step >= plain["input_ids"].shape[1])
    real, given = len(index), plain["input_ids"].shape[1]
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        assert batch[name].shape == (8, width)
        assert torch.equal(batch[name][:real, :given], plain[name])
        assert torch.equal(batch[name][real:], batch[name][:1].expand(8 - real, width))
    assert (batch["input_ids"][:, given:] == TOKENIZER.pad_token_id).all()
    assert (batch["attention_mask"][:, given:] == 0).all()
    assert batch["labels"].tolist() == [labels[i] for i in index] + [NO_LABEL] * (8 - real)
    assert batch["index"].tolist() == index + [NO_ROW] * (8 - real)
    assert rows.tolist() == index  # the plan is not written to
    assert encoded.labels.tolist() == labels


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(8, 300),
    batch_size=st.integers(1, 20),
    processes=st.integers(1, 8),
    batching=st.sampled_from(["bucketed", "random"]),
    epoch=st.integers(0, 9),
)
def test_every_row_goes_to_one_process_once_an_epoch(
    rows: int, batch_size: int, processes: int, batching: str, epoch: int
) -> None:
    lengths = np.arange(rows) * 7 % 50 + 3
    batches = training_batches(lengths, batch_size * processes, batching, 7, epoch)
    batches = join_short_batches(batches, processes)
    parts = [[part_of(batch, rank, processes) for batch in batches] for rank in range(processes)]
    given_out = [row for own in parts for index, _ in own for row in index.tolist()]
    assert sorted(given_out) == list(range(rows))
    for number, batch in enumerate(batches):
        sizes = [len(own[number][0]) for own in parts]
        assert min(sizes) > 0
        assert max(sizes) - min(sizes) <= 1
        # the mean over processes of weighted means is the mean over rows
        means = [(lengths[index].mean() * weight) for index, weight in (own[number] for own in parts)]
        assert np.mean(means) == pytest.approx(lengths[batch].mean())


def test_a_batch_with_fewer_rows_than_processes_joins_another() -> None:
    batches = [np.array([1, 2, 3]), np.array([9]), np.array([4, 5, 6])]
    assert [batch.tolist() for batch in join_short_batches(batches, 2)] == [[1, 2, 3], [4, 5, 6, 9]]
    assert [batch.tolist() for batch in join_short_batches(batches, 1)] == [[1, 2, 3], [9], [4, 5, 6]]
    with pytest.raises(ConfigError, match="fewer rows to train on than processes, which are 3") as caught:
        join_short_batches([np.array([1, 2])], 3)
    assert (caught.value.where, caught.value.fix) == ("accelerator.devices", "accelerator.devices=1")
    assert part_of(np.array([4, 2]), 0, 1)[1] == 1.0
    assert [part_of(np.array([4, 2, 7]), rank, 2)[1] for rank in (0, 1)] == [4 / 3, 2 / 3]
