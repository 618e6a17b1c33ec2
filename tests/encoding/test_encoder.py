"""The tokenizer's own ids and truncation, and a cache by the content of what was encoded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from bunryu.data.cleaner import NO_CLEANING, Cleaner
from bunryu.encoding import encoder as encoding
from bunryu.encoding.encoder import Encoded, Encoder, Template, unknown_tokens_warning
from bunryu.errors import DataError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "##a", "##b", "영화", "##가"]


def bert(words: list[str] = WORDS, **options: Any) -> Any:
    vocabulary = {word: index for index, word in enumerate(words)}
    return BertTokenizer(vocab=vocabulary, do_lower_case=False, strip_accents=False, **options)


def rust(words: list[str], unknown: str, processor: Any = None) -> Any:
    """A tokenizer of whole words that gives no token types."""
    ids = {word: index for index, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(ids, unk_token=unknown))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if processor is not None:
        backend.post_processor = processor
    names = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=words[0], model_input_names=names)


def encode(
    cache: Path, tokenizer: Any, texts: list[str], pairs: list[str] | None = None,
    cleaner: Cleaner = NO_CLEANING, overwrite: bool = False,
) -> tuple[Encoded, bool]:  # fmt: skip
    encoder = Encoder(tokenizer, cleaner, cache, overwrite=overwrite)
    return encoder.encode(texts, pairs, [0] * len(texts), range(len(texts)))


def in_memory(tokenizer: Any, texts: list[str], pairs: list[str] | None = None) -> Encoded:
    """Encoded arrays without any cache, from the tokenizer's own answers."""

    def flat(column: list[str]) -> tuple[Any, Any]:
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in column]
        offsets = np.cumsum([0, *map(len, ids)])
        return np.array([token for row in ids for token in row], dtype=np.uint16), offsets

    second = flat(pairs) if pairs is not None else (None, None)
    labels = np.zeros(len(texts), dtype=np.int64)
    return Encoded(*flat(texts), *second, labels, labels, Template.of(tokenizer))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("way", ["vocab.txt", "AutoTokenizer"])
def test_golden_ids_to_the_last_one(shared: Path, tmp_path: Path, way: str) -> None:
    folder = shared / "models/kcbert-base"
    words = (folder / "vocab.txt").read_text("utf-8").rstrip("\n").split("\n")
    lines = (shared / "golden/kcbert_encoding.jsonl").read_text("utf-8").splitlines()
    golden = [json.loads(line) for line in lines]
    by_folder = AutoTokenizer.from_pretrained(folder, do_lower_case=False)
    tokenizer = bert(words) if way == "vocab.txt" else by_folder
    encoded, _ = encode(tmp_path, tokenizer, [example["text"] for example in golden])
    assert len(golden) == 3
    for row, example in enumerate(golden):
        batch = encoded.batch(np.array([row]), 128, 128, tokenizer.pad_token_id)
        count = len(example["input_ids"])
        assert batch["input_ids"][0].tolist() == example["input_ids"] + [0] * (128 - count)
        assert batch["attention_mask"][0].tolist() == [1] * count + [0] * (128 - count)
        assert tokenizer.convert_ids_to_tokens(example["input_ids"]) == example["tokens"]


TEXTS = st.lists(st.lists(st.sampled_from("abc"), max_size=9).map(" ".join), min_size=1, max_size=5)
TOKENIZERS = {
    "bert": bert(),
    "bert, from the left": bert(truncation_side="left"),
    "roberta, two separators in a pair": rust(
        ["<pad>", "<s>", "</s>", "<unk>", "a", "b", "c"],
        "<unk>",
        processors.RobertaProcessing(("</s>", 2), ("<s>", 1), add_prefix_space=False),
    ),
    "no special tokens, as GPT-2": rust(["?", "a", "b", "c"], "?"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(texts=TEXTS, paired=st.booleans(), max_length=st.integers(1, 24), data=st.data())
def test_truncation_equals_the_tokenizers_own(
    name: str, texts: list[str], paired: bool, max_length: int, data: st.DataObject
) -> None:
    tokenizer = TOKENIZERS[name]
    pairs = None
    if paired:
        pairs = data.draw(st.lists(st.sampled_from(texts), min_size=len(texts), max_size=len(texts)))
    # From the special tokens alone (nothing of the text fits) up to more than any text needs.
    special = tokenizer.num_special_tokens_to_add(paired)
    max_length += special - (special > 0)
    encoded = in_memory(tokenizer, texts, pairs)
    theirs = tokenizer(texts, pairs, truncation=True, max_length=max_length)
    lengths = encoded.lengths(max_length)
    assert lengths.tolist() == [len(ids) for ids in theirs["input_ids"]]
    uncut = tokenizer(texts, pairs)["input_ids"]
    assert encoded.is_cut(max_length).tolist() == [len(ids) > max_length for ids in uncut]

    for padding, width in (("longest", int(lengths.max())), ("max_length", max_length)):
        ours = encoded.batch(np.arange(len(texts)), max_length, width, tokenizer.pad_token_id)
        theirs = tokenizer(texts, pairs, truncation=True, max_length=max_length, padding=padding)
        assert {key: value.tolist() for key, value in ours.items()} == dict(theirs)


def test_a_batch_takes_the_rows_it_is_asked_for_in_their_order() -> None:
    encoded = in_memory(bert(), ["a", "b b", "", "c"])
    batch = encoded.batch(np.array([3, 2, 1]), 8, 5, 0)
    assert batch["input_ids"].tolist() == [[2, 7, 3, 0, 0], [2, 3, 0, 0, 0], [2, 6, 6, 3, 0]]


def test_a_length_below_the_special_tokens_is_refused() -> None:
    with pytest.raises(AssertionError, match="1 tokens do not hold the special tokens"):
        in_memory(bert(), ["a"]).lengths(1)


def test_arrays_are_small_and_the_same_from_the_cache(tmp_path: Path) -> None:
    first, cached = encode(tmp_path, bert(), ["a b", "", "영화가 c"])
    assert not cached
    again, cached = encode(tmp_path, bert(), ["a b", "", "영화가 c"])
    assert cached
    assert again.ids.dtype == np.uint16
    assert first.ids.tolist() == again.ids.tolist() == [5, 6, 10, 11, 7]
    assert first.offsets.tolist() == again.offsets.tolist() == [0, 2, 2, 5]


def test_ids_beyond_sixteen_bits_keep_their_value(tmp_path: Path) -> None:
    # Fewer than 65,536 tokens, but numbered with a gap: their count does not tell their width.
    vocabulary = {**{word: index for index, word in enumerate(WORDS)}, "far": 70_000}
    tokenizer = BertTokenizer(vocab=vocabulary, do_lower_case=False)
    for expected_from_cache in (False, True):
        encoded, cached = encode(tmp_path, tokenizer, ["a far"])
        assert cached is expected_from_cache
        assert encoded.ids.tolist() == [5, 70_000]


@pytest.mark.parametrize("texts", [[""], ["", ""], []])
def test_nothing_to_encode_is_cached_too(tmp_path: Path, texts: list[str]) -> None:
    encode(tmp_path, bert(), texts)
    encoded, cached = encode(tmp_path, bert(), texts)
    assert cached
    assert encoded.lengths(8).tolist() == [2] * len(texts)


def test_many_texts_cross_the_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "CHUNK", 3)
    texts = ["a", "b c", "", "c", "a b c", "b", "영화", "x"]
    encoded, _ = encode(tmp_path, bert(), texts)
    theirs = bert()(texts, padding="max_length", max_length=9)["input_ids"]
    assert encoded.batch(np.arange(8), 9, 9, 0)["input_ids"].tolist() == theirs


def test_the_cleaner_comes_before_the_tokenizer(tmp_path: Path) -> None:
    assert encode(tmp_path, bert(), ["aXXb"], cleaner=Cleaner(allowed="abc "))[0].ids.tolist() == [5, 6]


def test_half_a_surrogate_pair_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        encode(tmp_path, bert(), ["a", "", "b \ud83d c"])
    assert "half a surrogate pair: 'b \\ud83d c'" in str(caught.value)
    assert caught.value.where == "document 3 of its split"
    assert files(tmp_path) == []


def test_the_key_changes_with_every_ingredient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def key(texts: list[str], tokenizer: Any = None, **cleaner: Any) -> str:
        return Encoder(tokenizer or bert(), Cleaner(**cleaner), tmp_path, overwrite=False).key(texts)

    others = (
        ["ab", "d"],
        ["a", "bc"],
        ["abc"],
        ["abc", ""],
        ["", "abc"],
        ["c", "ab"],
        ["a\x1eb"],
        ["a", "b"],
    )
    cleaners = {"allowed": "a", "remove_emoji": True, "remove_urls": True, "max_repeats": 2}
    keys = [key(texts) for texts in (["ab", "c"], *others)]
    keys += [key(["ab", "c"], bert([*words, "##나"])) for words in (WORDS[:-1], WORDS)]
    keys += [key(["ab", "c"], **{name: value}) for name, value in cleaners.items()]
    monkeypatch.setattr(encoding, "VERSION", encoding.VERSION + 1)
    keys.append(key(["ab", "c"]))
    assert len(set(keys)) == len(keys)


def test_the_key_does_not_change_with_truncation_or_padding(tmp_path: Path) -> None:
    plain, cut = bert(model_max_length=8), bert(model_max_length=300)
    cut("a b c a b c", truncation=True, max_length=3, padding="max_length")
    assert cut.backend_tokenizer.truncation is not None
    assert cut.backend_tokenizer.padding is not None
    encode(tmp_path, plain, ["a b c a b c"])
    encoded, cached = encode(tmp_path, cut, ["a b c a b c"])
    assert cached
    assert encoded.lengths(10**6).tolist() == [8]
    assert encoded.template == Template.of(plain)


def test_only_the_column_of_which_a_byte_changed_is_encoded_again(tmp_path: Path) -> None:
    texts, pairs = ["a b c", "", "c a"], ["c", "a a a a", "b"]
    encode(tmp_path, bert(), texts, pairs)
    for changed in ((["a b c", "", "c b"], pairs), (texts, ["c", "a a a a", "c"])):
        known = files(tmp_path)
        encoded, cached = encode(tmp_path, bert(), *changed)
        assert not cached
        assert len(files(tmp_path)) == len(known) + 3  # two arrays and their checksums
        theirs = bert()(*changed, padding="max_length", max_length=12)["input_ids"]
        assert encoded.batch(np.arange(3), 12, 12, 0)["input_ids"].tolist() == theirs


def test_a_damaged_cache_is_built_again(tmp_path: Path) -> None:
    encode(tmp_path, bert(), ["a b", "c"])
    (path,) = tmp_path.glob("encodings/*/ids.npy")
    whole = path.read_bytes()
    path.write_bytes(whole[:-2] + b"\x05\x00")  # another token
    encoded, cached = encode(tmp_path, bert(), ["a b", "c"])
    assert not cached
    assert encoded.ids.tolist() == [5, 6, 7]
    assert path.read_bytes() == whole


def test_overwriting_builds_again_and_leaves_what_is_read(tmp_path: Path) -> None:
    encode(tmp_path, bert(), ["a b c"])
    (path,) = tmp_path.glob("encodings/*/ids.npy")
    before = path.stat().st_ino
    read, _ = encode(tmp_path, bert(), ["a b c"])
    encoded, cached = encode(tmp_path, bert(), ["a b c"], overwrite=True)
    assert not cached
    assert encoded.ids.tolist() == read.ids.tolist() == [5, 6, 7]
    assert path.stat().st_ino != before
    assert [path.parent] == list((tmp_path / "encodings").iterdir())


def test_more_than_a_fifth_of_unknown_tokens_is_told() -> None:
    few, none, many = np.array([2, 10]), np.array([0, 0]), np.array([3, 10])
    assert unknown_tokens_warning(few) == unknown_tokens_warning(none) == []
    assert unknown_tokens_warning(many, "train's") == ["30% of train's tokens are unknown to the vocabulary"]
