"""Texts and names that look alike made equal: composed characters, and names without invisible ones."""

from __future__ import annotations

import re
import unicodedata
from itertools import groupby

MARKS_IN_A_ROW = 1000  # combining marks to be put in order, which takes the square of their number


def normalised(text: str) -> str:
    """The text with its characters composed (NFC), as readers give it out and models are given it.

    A text with more than ``MARKS_IN_A_ROW`` combining marks together, which no language has, stays as it is.
    """
    if text.isascii() or unicodedata.is_normalized("NFC", text):
        return text
    if len(text) > MARKS_IN_A_ROW:
        runs = groupby(text, key=lambda character: unicodedata.combining(character) > 0)
        if any(marks and sum(1 for _ in run) > MARKS_IN_A_ROW for marks, run in runs):
            return text
    return unicodedata.normalize("NFC", text)


def name_of(written: str) -> str:
    """A label's or column's name as it is compared: composed, nothing invisible, blanks as one space.

    Invisible is Unicode's category Cf: zero-width spaces and joiners, byte-order marks, soft hyphens.
    """
    if written.isascii():
        return " ".join(written.split())
    visible = "".join(character for character in written if unicodedata.category(character) != "Cf")
    return " ".join(normalised(visible).split())


def spelt_out(written: str) -> str:
    """A name for messages, with the code point of each character that does not show as what it is."""
    return re.sub(r"[^\w\s!-~]|[^\S ]|[\u1100-\u11ff]", lambda found: f"<U+{ord(found[0]):04X}>", written)
