"""A learnt vocabulary: the same everywhere, well formed, and whole in its cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import BertTokenizer

from bunryu.data.cleaner import NO_CLEANING, Cleaner
from bunryu.encoding import vocabulary
from bunryu.encoding.vocabulary import LEARNT_CHARACTERS, SPECIAL, learn_wordpiece

STEMS = ["영화", "배우", "연기", "감독", "음악", "Film", "시나리오", "장면"]
ENDINGS = ["가", "는", "도", "를", "의", "에서", "까지", "s"]
TEXTS = [f"{stem}{ending} 정말 좋았다!" for stem in STEMS for ending in ENDINGS] * 3


def tokenizer_of(tokens: list[str]) -> BertTokenizer:
    ids = {token: index for index, token in enumerate(tokens)}
    return BertTokenizer(vocab=ids, do_lower_case=False, strip_accents=False)


def the_file(cache: Path) -> Path:
    (path,) = (cache / "vocabularies").iterdir()
    return path


@pytest.mark.parametrize("size", [5, 6, 20, 50, 100, 200])
def test_the_size_is_a_bound_and_special_tokens_come_first(tmp_path: Path, size: int) -> None:
    tokens = learn_wordpiece(TEXTS, size, NO_CLEANING, tmp_path)
    assert len(set(tokens)) == len(tokens) <= size
    assert tuple(tokens[:5]) == SPECIAL == ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def test_a_larger_size_learns_whole_words(tmp_path: Path) -> None:
    tokens = learn_wordpiece(TEXTS, 200, NO_CLEANING, tmp_path)
    assert {"영화", "정말", "좋았다", "시나리오", "##에서", "Film"} <= set(tokens)
    assert len(learn_wordpiece(TEXTS, 90, NO_CLEANING, tmp_path)) == 90
    assert tokenizer_of(tokens).tokenize("시나리오 영화에서") == ["시나리오", "영화에서"]


def test_prefixed_tokens_continue_words_and_the_others_begin_them(tmp_path: Path) -> None:
    tokens = learn_wordpiece(TEXTS, 120, NO_CLEANING, tmp_path)
    words = vocabulary._count_words(TEXTS, NO_CLEANING)
    for token in tokens[len(SPECIAL) :]:
        if token.startswith("##"):
            assert any(token[2:] in word[1:] for word in words), token
        else:
            assert any(word.startswith(token) for word in words), token
        assert all(ord(character) < 0x10000 for character in token)


def test_its_own_words_are_known_as_far_as_the_alphabet_goes(tmp_path: Path) -> None:
    tokenizer = tokenizer_of(learn_wordpiece(TEXTS, 200, NO_CLEANING, tmp_path))
    assert "[UNK]" not in [token for text in TEXTS for token in tokenizer.tokenize(text)]
    small = tokenizer_of(learn_wordpiece(TEXTS, 25, NO_CLEANING, tmp_path))  # ten characters
    assert "[UNK]" in small.tokenize(" ".join(TEXTS))
    assert small.tokenize("정말 좋았다!") == ["정말", "좋았다", "!"]


def test_emoji_and_private_characters_do_no_harm(tmp_path: Path) -> None:
    # The last is where shifted characters are kept while learning.
    strange = [*TEXTS, "영화😀가 😀😀 👩‍👩‍👧", "𠮷野家", chr(0x100000 + ord("가")) + "영화", "\ue000영화"]
    tokens = learn_wordpiece(strange, 200, NO_CLEANING, tmp_path)
    assert all(ord(character) < 0x10000 for token in tokens for character in token)
    assert len(set(tokens)) == len(tokens)
    assert {"영화", "##에서"} <= set(tokens)
    assert tokenizer_of(tokens).tokenize("😀 영화가") == ["[UNK]", *tokenizer_of(tokens).tokenize("영화가")]


def test_case_and_accents_are_kept(tmp_path: Path) -> None:
    tokens = learn_wordpiece(["Café Film"] * 9, 100, NO_CLEANING, tmp_path)
    assert {"Café", "Film"} <= set(tokens)
    assert tokenizer_of(tokens).tokenize("Café Film") == ["Café", "Film"]


def test_no_texts_leave_the_special_tokens(tmp_path: Path) -> None:
    assert learn_wordpiece(["", " "], 100, NO_CLEANING, tmp_path) == list(SPECIAL)


LEARN = """
import sys
from pathlib import Path
from bunryu.data.cleaner import NO_CLEANING
from bunryu.encoding.vocabulary import learn_wordpiece
texts = Path(sys.argv[2]).read_text("utf-8").split("\\n")
learn_wordpiece(texts, 150, NO_CLEANING, Path(sys.argv[1]))
"""


def test_two_processes_learn_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "texts").write_text("\n".join(TEXTS), "utf-8")
    learnt = set()
    for seed in ("0", "1"):
        command = [sys.executable, "-c", LEARN, str(tmp_path / seed), str(tmp_path / "texts")]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": seed})
        learnt.add((the_file(tmp_path / seed).name, the_file(tmp_path / seed).read_bytes()))
    assert len(learnt) == 1


def test_the_cache_gives_what_was_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh = learn_wordpiece(TEXTS, 150, NO_CLEANING, tmp_path)
    monkeypatch.setattr(vocabulary, "_learn", None)  # learning again would fail
    assert learn_wordpiece(TEXTS, 150, NO_CLEANING, tmp_path) == fresh
    assert the_file(tmp_path).is_file()  # the only one


def test_another_ingredient_is_another_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for texts in (["ab", "c"], ["a", "bc"], ["ab\x1ec"]):
        learn_wordpiece(texts, 100, NO_CLEANING, tmp_path)
    learn_wordpiece(["ab", "c"], 101, NO_CLEANING, tmp_path)
    learn_wordpiece(["ab", "c"], 100, Cleaner(max_repeats=2), tmp_path)
    monkeypatch.setattr(vocabulary, "VERSION", vocabulary.VERSION + 1)
    learn_wordpiece(["ab", "c"], 100, NO_CLEANING, tmp_path)
    assert len(list((tmp_path / "vocabularies").iterdir())) == 6


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "not utf-8"])
def test_a_damaged_cache_is_noticed_and_built_again(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    fresh = learn_wordpiece(TEXTS, 150, NO_CLEANING, tmp_path)
    path = the_file(tmp_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    damaged = {"flip": content, "cut": content[:-9], "empty": b"", "not utf-8": b"\xff" * 99}[damage]
    path.write_bytes(damaged)
    assert learn_wordpiece(TEXTS, 150, NO_CLEANING, tmp_path) == fresh
    assert f"the cache {path.name} is damaged" in caplog.text
    caplog.clear()
    assert learn_wordpiece(TEXTS, 150, NO_CLEANING, tmp_path) == fresh
    assert caplog.text == ""


def test_an_interrupted_write_leaves_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        learn_wordpiece(TEXTS, 150, NO_CLEANING, tmp_path)
    assert list((tmp_path / "vocabularies").iterdir()) == []


def test_an_unwritable_cache_only_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    assert len(learn_wordpiece(TEXTS, 150, NO_CLEANING, tmp_path / "file")) == 122
    assert "the vocabulary is not cached" in caplog.text


def test_words_beyond_the_tokenizers_limit_teach_nothing_and_cost_no_time(tmp_path: Path) -> None:
    long = ["x" * 101, "QmFzZTY0" * 20_000, "나" + "\u0301" * 160_000, "쓰" * 102 + "é"]
    tokens = learn_wordpiece([*TEXTS, *long], 200, NO_CLEANING, tmp_path)
    assert tokens == learn_wordpiece(TEXTS, 200, NO_CLEANING, tmp_path)
    assert [tokenizer_of(tokens).tokenize(word) for word in long] == [["[UNK]"]] * 4
    assert "x" in learn_wordpiece([*TEXTS, "x" * 100], 200, NO_CLEANING, tmp_path)


def test_what_no_model_would_read_of_a_text_teaches_nothing(tmp_path: Path) -> None:
    beginning = ("좋은 영화 " * LEARNT_CHARACTERS)[:LEARNT_CHARACTERS]
    assert learn_wordpiece([beginning + " 꼬리말" * 9], 100, NO_CLEANING, tmp_path) == (
        learn_wordpiece([beginning], 100, NO_CLEANING, tmp_path)
    )
