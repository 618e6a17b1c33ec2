"""Cleaning as KcBERT's authors published it, and no cleaning at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bunryu.data.cleaner import NO_CLEANING, Cleaner
from bunryu.errors import ConfigError

CLEANERS = Path(__file__).parents[2] / "conf" / "corpus" / "cleaner"
derandomized = settings(max_examples=300, derandomize=True, deadline=None)


def configured(option: str) -> Cleaner:
    values = yaml.safe_load((CLEANERS / f"{option}.yaml").read_text(encoding="utf-8"))
    assert values.pop("_target_") == "bunryu.data.cleaner.Cleaner"
    assert set(values) == {field.name for field in dataclasses.fields(Cleaner)}
    return Cleaner(**values)


KCBERT = configured("kcbert")


@derandomized
@example(text="  ㅋㅋㅋㅋ 😀\u200d http://a.b\t\n漢 ")
@given(text=st.text())
def test_no_cleaning_changes_nothing(text: str) -> None:
    assert NO_CLEANING(text) == text
    assert configured("none") == Cleaner() == NO_CLEANING


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("재밌다 ㄱㅏ ㅇㅈ A-z 09 .,?!/@$%~％·∼()", "재밌다 ㄱㅏ ㅇㅈ A-z 09 .,?!/@$%~％·∼()"),
        ("美친 연기", "친 연기"),
        ("연기美친", "연기 친"),
        ("연기(演技)력", "연기( )력"),
        ("ア「최고」ン", "최고"),
        ("최고😀👍🏽", "최고"),
        ("최고😀영화", "최고 영화"),
        ("가족👨‍👩‍👧입니다❤️", "가족 입니다"),
        ("별★★★★★", "별"),
        ("ㅋㅋㅋㅋㅋ", "ㅋㅋ"),
        ("ㅋㅋ", "ㅋㅋ"),
        ("와하하하하하하하하하핫", "와하하핫"),
        ("네!!!!! 음.....", "네!!!!! 음....."),
        ("aaaa 1111 ____", "aa 11 __"),
        ("  앞 \t 뒤\n\n끝  ", "앞 뒤 끝"),
        ("漢字", ""),
        # addresses go, and a particle right behind them stays
        ("예고편 https://example.com/a_b?c=d&e=%20#f-g 보세요", "예고편 보세요"),
        ("http://www.example.co.kr/~me/(1)", ""),
        ("https://example.com/watch를 보면", "를 보면"),
        ("앞http://a.b뒤", "앞뒤"),
        ("가가http://a.b가", "가가"),
        ("ftp://a.b www.a.b http:// a", "ftp://a.b ww.a.b http:// a"),
        ("htttp://a.b", "http://a.b"),  # an address made by shortening survives, as published
    ],
)
def test_kcberts_cleaning(text: str, cleaned: str) -> None:
    assert KCBERT(text) == cleaned


EMOJI = ["😀", "👍🏽", "👨‍👩‍👧", "❤️", "🇰🇷", "1️⃣", "#⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "©", "™", "♥"]


def test_an_emoji_is_deleted_whole_and_what_only_looks_like_one_stays() -> None:
    remove = Cleaner(remove_emoji=True)
    assert {emoji: remove(f"가{emoji}나") for emoji in EMOJI} == dict.fromkeys(EMOJI, "가나")
    others = [f"가{sign}나" for sign in "★☆♡✓→①ㅎ1#~㈜漢"]
    assert [remove(text) for text in others] == others


def test_each_part_works_alone() -> None:
    text = " 가가가  漢 😀 http://a.b "
    assert Cleaner(allowed=" 가-힣")(text) == "가가가"
    assert Cleaner(remove_emoji=True)(text) == "가가가  漢  http://a.b"
    assert Cleaner(remove_urls=True)(text) == "가가가  漢 😀"
    assert Cleaner(max_repeats=1)(text) == "가 漢 😀 htp://a.b"
    assert Cleaner(max_repeats=3)("가가가가 나나") == "가가가 나나"


@pytest.mark.parametrize("allowed", ["", "힣-가", "가\\", "\\xZZ", "a]|(x+x+)+y[b"])
def test_what_is_no_character_class_is_refused_at_once(allowed: str) -> None:
    with pytest.raises(ConfigError, match="inside of a regular expression's character class") as refused:
        Cleaner(allowed=allowed)
    assert refused.value.where == "corpus.cleaner.allowed"


comments = st.text(st.sampled_from("가나ㅋㅠ 😀①漢♡♥#1\ufe0f\u20e3.:/htps\t\n!"), max_size=40) | st.text()


@derandomized
@given(text=comments | st.tuples(comments, comments).map("http://a.b/c?d".join))
def test_a_second_cleaning_finds_nothing_more_to_do(text: str) -> None:
    cleaned = KCBERT(text)
    assume("://" not in cleaned)
    assert KCBERT(cleaned) == cleaned
    assert cleaned == cleaned.strip()
