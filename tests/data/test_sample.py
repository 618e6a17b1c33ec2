"""The made-up reviews are many, balanced, distinct, and neither trivial nor hopeless to classify."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict

import pytest

from bunryu.data.corpora import Corpus, Sample
from bunryu.data.examples import Example


@pytest.fixture(scope="module")
def sample() -> Corpus:
    """All of train in ``train``."""
    return Sample("sample", "test", 42, {0: "부정", 1: "긍정"}).read()


def rows(sample: Corpus, where: str) -> list[Example]:
    return {"train": sample.train, "test": sample.test, "both": sample.train + sample.test}[where]


def test_there_are_enough_rows_all_used_and_labels_balanced_within_a_hundredth(sample: Corpus) -> None:
    for split, least in (("train", 1_200), ("test", 300)):
        labels = Counter(example.label for example in sample.split(split))
        assert labels.total() >= least
        assert set(labels) == {"0", "1"}
        assert abs(labels["0"] - labels["1"]) <= 0.01 * labels.total()
        counts = sample.row_counts[split]
        assert (counts.read, counts.rejected, counts.notes) == (counts.used, {}, {})
    assert sample.warnings == []  # no document is empty or twice there, and none of test in train


def test_no_test_row_shares_more_than_half_its_bigrams_with_any_train_row(sample: Corpus) -> None:
    def bigrams(text: str) -> set[tuple[str, str]]:
        return set(itertools.pairwise(text.split()))

    holders: dict[tuple[str, str], list[int]] = defaultdict(list)
    for example in sample.train:
        for bigram in bigrams(example.text):
            holders[bigram].append(example.row)
    too_close = []
    for example in sample.test:
        own = bigrams(example.text)
        shared = Counter(row for bigram in own for row in holders[bigram])
        if shared and max(shared.values()) > len(own) / 2:
            too_close.append(example.text)
    assert too_close == []


@pytest.mark.parametrize("where", ["train", "test", "both"])
def test_no_word_gives_one_label_away(sample: Corpus, where: str) -> None:
    """A word that stands in the rows of one label only stands in at most 3% of them."""
    rows_with: dict[str, Counter[str]] = defaultdict(Counter)
    of_label = Counter(example.label for example in rows(sample, where))
    for example in rows(sample, where):
        for word in set(example.text.split()):
            rows_with[word][example.label] += 1
    telling = {
        word: dict(counts)
        for word, counts in rows_with.items()
        if len(counts) == 1 and all(count > 0.03 * of_label[label] for label, count in counts.items())
    }
    assert telling == {}


def test_naive_bayes_finds_it_neither_trivial_nor_hopeless(sample: Corpus) -> None:
    words: dict[str, Counter[str]] = {"0": Counter(), "1": Counter()}
    for example in sample.train:
        words[example.label].update(example.text.split())
    vocabulary = len(words["0"] | words["1"])
    priors = Counter(example.label for example in sample.train)

    def score(text: str, label: str) -> float:
        total = words[label].total() + vocabulary
        likelihoods = (math.log((words[label][word] + 1) / total) for word in text.split())
        return math.log(priors[label]) + sum(likelihoods)

    right = sum((score(e.text, "1") > score(e.text, "0")) == (e.label == "1") for e in sample.test)
    assert 0.70 <= right / len(sample.test) <= 0.90
