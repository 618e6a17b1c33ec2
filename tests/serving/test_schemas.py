"""Bodies that are taken and bodies that are refused, with what is said of them."""

from __future__ import annotations

from typing import Any

import pytest

from bunryu.serving.errors import HttpError
from bunryu.serving.schemas import Limits, RequestSchemas

LIMITS = Limits(texts=3, characters=5)
SINGLE = RequestSchemas(LIMITS, takes_pairs=False)
PAIRS = RequestSchemas(LIMITS, takes_pairs=True)


@pytest.mark.parametrize(
    ("bodies", "body", "documents"),
    [
        (SINGLE, {"text": "좋은영화다"}, (["좋은영화다"], None, False)),
        (SINGLE, {"text": "\x01\t\r\n\x7f"}, (["\x01\t\r\n\x7f"], None, False)),
        (SINGLE, {"texts": ["a", "", "c"]}, (["a", "", "c"], None, True)),
        (PAIRS, {"text": "a", "pair": ""}, (["a"], [""], False)),
        (PAIRS, {"texts": ["a", "b"], "pairs": ["c", "d"]}, (["a", "b"], ["c", "d"], True)),
    ],
)
def test_documents_of_a_body(bodies: RequestSchemas, body: Any, documents: Any) -> None:
    assert bodies.documents(body) == documents


@pytest.mark.parametrize(
    ("bodies", "body", "what", "where"),
    [
        (SINGLE, None, "not an object", "body"),
        (SINGLE, {}, "missing", "body.text"),
        (
            SINGLE,
            {"text": "\ud800"},
            "a text holds half a surrogate pair, which is no character",
            "body.text",
        ),
        (SINGLE, {"text": "123456"}, "a text has more than 5 characters", "body.text"),
        (SINGLE, {"text": "a\x00"}, "a text holds a NUL character", "body.text"),
        (SINGLE, {"text": "a", "pair": "b"}, "a key that is not known here", "body.pair"),
        (SINGLE, {"text": "a", "x" * 900: 1}, "a key that is not known here", f"body.{'x' * 40}…"),
        (SINGLE, {"text": "a", "\x1b[2J": 1}, "a key that is not known here", "body.?[2J"),
        (SINGLE, {"texts": []}, "no texts", "body.texts"),
        (SINGLE, {"texts": "abc"}, "not a list", "body.texts"),
        (SINGLE, {"texts": ["a"] * 4}, "more than 3 texts in one request", "body.texts"),
        (SINGLE, {"texts": ["a", "b", 3]}, "not a string", "body.texts[2]"),
        (PAIRS, {"text": "a"}, "missing", "body.pair"),
        (PAIRS, {"texts": ["a", "b"], "pairs": ["c"]}, "2 texts and 1 pairs", "body.pairs"),
    ],
)
def test_what_is_refused(bodies: RequestSchemas, body: Any, what: str, where: str) -> None:
    with pytest.raises(HttpError) as refused:
        bodies.documents(body)
    assert refused.value.status == 422
    assert (refused.value.error["what"], refused.value.error["where"]) == (what, where)


@pytest.mark.parametrize(("bodies", "taken"), [(SINGLE, "single texts"), (PAIRS, "pairs of texts")])
def test_a_refusal_says_what_the_model_takes(bodies: RequestSchemas, taken: str) -> None:
    with pytest.raises(HttpError) as refused:
        bodies.documents({})
    assert refused.value.error["fix"].startswith(f'this model takes {taken}: {{"text": "…"')


def test_a_key_of_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(HttpError) as refused:
        SINGLE.documents({"\ud800": "a"})
    assert b"surrogate" in bytes(refused.value.response().body)


@pytest.mark.parametrize("body", [None, 1, ["a"], {"text": "a"}, "123456", "\x00", "\udfff"])
def test_a_sentence_is_a_bare_string(body: Any) -> None:
    assert SINGLE.sentence("문장") == "문장"
    with pytest.raises(HttpError) as refused:
        SINGLE.sentence(body)
    assert refused.value.status == 422
