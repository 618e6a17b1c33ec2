"""Texts and names that look alike made equal: composed characters, and names without invisible ones."""

from __future__ import annotations

import functools
import re
import unicodedata

# Combining marks (and symbols) in a row: to put them in order takes the square of their number.
_MANY_MARKS = re.compile(r"[^\w\s!-~]{1000}")


def normalised(text: str) -> str:
    """The text with its characters composed (NFC), as readers give it out and models are given it.

    A text with 1,000 combining marks together, which no language has, stays as it is.
    """
    if text.isascii() or unicodedata.is_normalized("NFC", text) or _MANY_MARKS.search(text):
        return text
    return unicodedata.normalize("NFC", text)


@functools.lru_cache(1024)  # a label is asked for at every row
def name_of(written: str) -> str:
    """A label's or column's name as it is compared: composed, nothing invisible, blanks as one space.

    Invisible is Unicode's category Cf: zero-width spaces and joiners, byte-order marks, soft hyphens.
    """
    if written.isascii():
        return " ".join(written.split())
    visible = "".join(character for character in written if unicodedata.category(character) != "Cf")
    return " ".join(normalised(visible).split())


def spelt_out(written: str) -> str:
    """A name for messages, with the code points of what does not show, such as marks and no-break spaces."""
    return "".join(each if _shows(each) else f"<U+{ord(each):04X}>" for each in written)


def _shows(character: str) -> bool:
    hidden = unicodedata.category(character)[0] in "CMZ" and character != " "
    part_of_syllable = (
        "\u1100" <= character <= "\u11ff" or character == "\u3164"
    )  # the last is Hangul's filler
    return not hidden and not part_of_syllable
