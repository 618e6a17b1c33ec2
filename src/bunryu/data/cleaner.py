"""Cleaning of documents before they are tokenized."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

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
MAX_REPEATS = 1000


@lru_cache
def _patterns(allowed: str | None, max_repeats: int) -> tuple[re.Pattern[str], re.Pattern[str]]:
    return re.compile(f"[^{allowed}]+"), re.compile(rf"(\w)\1{{{max_repeats},}}")


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
        if not 0 <= self.max_repeats <= MAX_REPEATS:
            what, where = f"{self.max_repeats} is not from 0 to {MAX_REPEATS}", "corpus.cleaner.max_repeats"
            raise ConfigError(what, where=where, fix=f"{where}=2")
        try:
            if re.search(r"(?<!\\)(\\\\)*\]", self.allowed or ""):
                raise re.error("a ']' without a backslash would end it")  # and begin what may take for ever
            _patterns(self.allowed, self.max_repeats)
        except re.error as error:
            what = f"'{self.allowed}' is not the inside of a regular expression's character class: {error}"
            fix = "for example ' .,?!0-9a-zA-Zㄱ-ㅣ가-힣', with \\], \\^ and \\\\ for those characters"
            raise ConfigError(what, where="corpus.cleaner.allowed", fix=fix) from None

    def __call__(self, text: str) -> str:
        not_allowed, repeated = _patterns(self.allowed, self.max_repeats)
        if self.allowed is not None:
            text = not_allowed.sub(" ", text)
        if self.remove_emoji:
            text = _EMOJI.sub("", text)
        if self.remove_urls:
            text = _URL.sub("", text)
        if self.max_repeats:
            text = _SPACE.sub(" ", repeated.sub(r"\1" * self.max_repeats, text))
        return text if self == NO_CLEANING else text.strip()


NO_CLEANING = Cleaner()
