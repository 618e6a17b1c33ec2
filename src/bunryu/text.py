"""Cleaning of documents before they are tokenized."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

# Pictographs, dingbats, flags, skin tones, and the joiners that bind them into one emoji.
_EMOJI = re.compile(
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u2300-\u23ff\ufe0f\u200d\u20e3\U000e0020-\U000e007f]+"
)
_URL = re.compile(r"https?://[^\s가-힣]+")
_SPACE = re.compile(r"\s+")


@lru_cache
def _outside(allowed: str) -> re.Pattern[str]:
    return re.compile(f"[^{allowed}]+")


@lru_cache
def _repeated(times: int) -> re.Pattern[str]:
    return re.compile(r"(\w)\1{%d,}" % times)


@dataclass(frozen=True)
class Cleaner:
    """A pure function of text, frozen so that a run can record it and a service can repeat it.

    The defaults change nothing. With the values of ``conf/corpus/cleaner/kcbert.yaml`` it does what
    KcBERT's authors published for their comments (github.com/Beomi/KcBERT, "Preprocessing").

    Args:
        allowed: the inside of a regular expression's character class; every run of other characters
            becomes one space. None allows all.
        remove_emoji: delete emoji.
        remove_urls: delete http(s) addresses.
        max_repeats: shorten a letter repeated more often to this many, and white space to one blank;
            0 leaves repeats alone.
    """

    allowed: str | None = None
    remove_emoji: bool = False
    remove_urls: bool = False
    max_repeats: int = 0

    def __call__(self, text: str) -> str:
        """Return the cleaned text."""
        if self.remove_emoji:
            text = _EMOJI.sub("", text)
        if self.allowed is not None:
            text = _outside(self.allowed).sub(" ", text)
        if self.remove_urls:
            text = _URL.sub("", text)
        if self.max_repeats:
            text = _repeated(self.max_repeats).sub(r"\1" * self.max_repeats, text)
            text = _SPACE.sub(" ", text)
        return text if self == NOTHING else text.strip()


NOTHING = Cleaner()
