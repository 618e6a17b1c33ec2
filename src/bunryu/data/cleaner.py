"""Cleaning of documents before they are tokenized."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bunryu.errors import ConfigError

# Emoji outside ASCII with flags, skin tones and joiners; a keycap emoji together with its key (digit, #, *).
_EMOJI = re.compile(
    "[0-9#*]\ufe0f?\u20e3|["
    "©®‼⁉™ℹ↔-↙↩↪⌚⌛⌨⏏⏩-⏳⏸-⏺Ⓜ▪▫▶◀◻-◾☀-☄☎☑☔☕☘☝☠☢☣☦☪☮☯☸-☺♀♂♈-♓♟♠♣♥♦♨♻♾♿⚒-⚗⚙⚛⚜⚠⚡⚧⚪⚫⚰⚱⚽⚾⛄⛅⛈⛎⛏⛑⛓⛔⛩⛪"
    "⛰-⛵⛷-⛺⛽✂✅✈-✍✏✒✔✖✝✡✨✳✴❄❇❌❎❓-❕❗❣❤➕-➗➡➰➿⤴⤵⬅-⬇⬛⬜⭐⭕〰〽㊗㊙"
    "\u200d\u20e3\ufe0f\U0001f000-\U0001faff\U000e0020-\U000e007f]+"
)
# An address ends at the first character that it would have to escape, such as a hangul particle after it.
_URL = re.compile(r"https?://[-a-zA-Z0-9@:%._+~#=?&/()]+")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Cleaner:
    """Cleans a text; the defaults change nothing.

    With the values of ``conf/corpus/cleaner/kcbert.yaml`` it does what KcBERT's authors published
    (github.com/Beomi/KcBERT, "Preprocessing"). As there, a second pass may find more to do:
    ``htttp://a.b`` becomes an address only once its letters are shortened.

    Args:
        allowed: the inside of a regular expression's character class; every run of other characters
            becomes one space. None allows all.
        remove_emoji: delete emoji.
        remove_urls: delete http(s) addresses.
        max_repeats: keep at most this many of a letter in a row, and one space of white space; 0 for
            no limit.

    Raises:
        ConfigError: if ``allowed`` is not the inside of a character class.
    """

    allowed: str | None = None
    remove_emoji: bool = False
    remove_urls: bool = False
    max_repeats: int = 0

    def __post_init__(self) -> None:
        if self.allowed is None:
            return
        try:
            re.compile(f"[^{self.allowed}]+")
        except re.error as error:
            raise ConfigError(
                f"'{self.allowed}' is not the inside of a regular expression's character class: {error}",
                where="corpus.cleaner.allowed",
                fix="for example ' .,?!0-9a-zA-Zㄱ-ㅣ가-힣', with \\], \\^ and \\\\ for those characters",
            ) from None

    def __call__(self, text: str) -> str:
        if self.allowed is not None:
            text = re.sub(f"[^{self.allowed}]+", " ", text)  # re caches what it compiles
        if self.remove_emoji:
            text = _EMOJI.sub("", text)
        if self.remove_urls:
            text = _URL.sub("", text)
        if self.max_repeats:
            text = re.sub(rf"(\w)\1{{{self.max_repeats},}}", r"\1" * self.max_repeats, text)
            text = _SPACE.sub(" ", text)
        return text if self == NO_CLEANING else text.strip()


NO_CLEANING = Cleaner()
