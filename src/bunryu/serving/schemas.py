"""Request and answer bodies of the service: their schemas, and the documents in a request's JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from bunryu.serving.errors import HttpError


@dataclass(frozen=True)
class Limits:
    """How much a request may hold."""

    texts: int = 256
    characters: int = 10_000  # in one text
    bytes: int = 1 << 20


# The answers. Their names, docstrings and descriptions are what /openapi.json and /docs say.


class Problem(BaseModel):
    """What is wrong, where, and what to do about it."""

    what: str
    where: str
    fix: str


class ErrorAnswer(BaseModel):
    """What every request is answered that is not answered as asked."""

    error: Problem


Probability = Annotated[float, Field(ge=0, le=1)]


class Prediction(BaseModel):
    """What the model says of a document."""

    label: str = Field(description="the most probable class")
    probability: Probability = Field(description="of that class")
    probabilities: dict[str, Probability] = Field(description="of every class, in the order of their ids")
    cut: bool = Field(description="whether the text was longer than the model reads, and its end left out")


class Predictions(BaseModel):
    """What the model says of several documents, in the order sent."""

    predictions: list[Prediction]


class Demo(BaseModel):
    """A prediction of a two-class model, in words for a page.

    Where it is not known which class is positive, class 1 stands there and the prediction names no sign.
    """

    sentence: str
    prediction: str
    positive_data: str
    negative_data: str
    positive_width: str
    negative_width: str
    cut: bool = Field(description="whether the sentence was longer than the model reads")


class Health(BaseModel):
    """That the service answers, and how much it has to do."""

    status: str = Field(examples=["ok"])
    queued_texts: int = Field(ge=0, description="accepted and not answered yet")


class Model(BaseModel):
    """What is served."""

    name: str
    labels: list[str] = Field(description="in the order of their ids")
    takes_pairs: bool = Field(description="whether a document is a pair of texts")
    max_seq_length: int = Field(description="tokens after which a document is cut")
    runtime: str
    device: str
    version: str = Field(description="of bunryu")
    limits: Limits


class RequestSchemas:
    """The request bodies that a model takes, of single texts or of pairs."""

    def __init__(self, limits: Limits, takes_pairs: bool) -> None:
        self._limits, self._takes_pairs = limits, takes_pairs
        # NUL is refused as it is in corpora; other control characters are text like any other.
        text = Annotated[str, Field(max_length=limits.characters, pattern=r"^[^\x00]*$", strict=True)]
        texts = Annotated[list[text], Field(min_length=1, max_length=limits.texts)]
        one, many = {"text": "the document"}, {"texts": "the documents"}
        if takes_pairs:
            one = {"text": "first text", "pair": "second text"}
            many = {"texts": "first texts", "pairs": "second texts, as many"}
        self._one = _object("Document", text, one)
        self._many = _object("Documents", texts, many)
        self._bare: TypeAdapter[str] = TypeAdapter(text)

    def documents(self, body: object) -> tuple[list[str], list[str] | None, bool]:
        """The texts of a request to /predict, their pairs, and whether they came as a list; or HttpError."""
        listed = isinstance(body, dict) and "texts" in body
        try:
            (self._many if listed else self._one).model_validate(body)
        except ValidationError as error:
            raise self._http_error(error) from None
        given: dict[str, Any] = body  # type: ignore[assignment]  # validated
        if not listed:
            return [given["text"]], [given["pair"]] if self._takes_pairs else None, False
        if self._takes_pairs and len(given["texts"]) != len(given["pairs"]):
            lengths = f"{len(given['texts'])} texts and {len(given['pairs'])} pairs"
            raise HttpError(422, lengths, where="body.pairs", fix="one pair for each text")
        return given["texts"], given.get("pairs"), True

    def sentence(self, body: object) -> str:
        """The text of a request to /api, whose body is a bare JSON string; or HttpError."""
        try:
            return self._bare.validate_python(body)
        except ValidationError as error:
            raise self._http_error(error, 'a bare string: "…"; POST /predict takes {"text": "…"}') from None

    def _http_error(self, error: ValidationError, taken: str = "") -> HttpError:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        messages = {
            "string_too_long": f"a text has more than {self._limits.characters} characters",
            "too_long": f"more than {self._limits.texts} texts in one request",
            "too_short": "no texts",
            "string_pattern_mismatch": "a text holds a NUL character",
            "string_unicode": "a text holds half a surrogate pair, which is no character",
            "string_type": "not a string",
            "list_type": "not a list",
            "model_type": "not an object",
            "missing": "missing",
            "extra_forbidden": "a key that is not known here",
        }
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{_shown(part)}" for part in first["loc"])
        kinds = 'single texts: {"text": "…"} or {"texts": ["…", …]}'
        if self._takes_pairs:
            kinds = 'pairs of texts: {"text": "…", "pair": "…"} or {"texts": […], "pairs": […]}'
        what, fix = messages.get(first["type"], first["msg"]), taken or f"this model takes {kinds}"
        return HttpError(422, what, where=f"body{where}", fix=fix)

    def openapi_documents(self) -> dict[str, Any]:
        """The request body of /predict for an OpenAPI description."""
        one, many = {"text": "정말 재미있게 봤어요"}, {"texts": ["정말 재미있게 봤어요", "시간이 아까웠다"]}
        if self._takes_pairs:
            one |= {"pair": "다시 보고 싶은 영화"}
            many |= {"pairs": ["다시 보고 싶은 영화", "추천하지 않아요"]}
        schema = {"anyOf": [self._one.model_json_schema(), self._many.model_json_schema()]}
        return _request_body(schema, one=one, several=many)

    def openapi_sentence(self) -> dict[str, Any]:
        """The request body of /api for an OpenAPI description."""
        return _request_body(self._bare.json_schema(), one="정말 재미있게 봤어요")


def _object(name: str, kind: Any, descriptions: dict[str, str]) -> type[BaseModel]:
    """A schema of an object with these keys and no others, whose values are all of one kind."""
    fields: dict[str, Any] = {key: (kind, Field(description=said)) for key, said in descriptions.items()}
    return create_model(name, __config__=ConfigDict(extra="forbid", strict=True), **fields)


def _request_body(schema: dict[str, Any], **examples: object) -> dict[str, Any]:
    media = {"schema": schema, "examples": {name: {"value": value} for name, value in examples.items()}}
    return {"requestBody": {"required": True, "content": {"application/json": media}}}


def _shown(key: str) -> str:
    """The beginning of an unknown key, with control characters replaced."""
    return "".join(c if c.isprintable() else "?" for c in key[:40]) + "…" * (len(key) > 40)


async def read_json(request: Request) -> object:
    """A request's body, parsed; HttpError if it is not JSON."""
    # A page of another origin can send other types without being asked; before this one the browser asks
    # the service (preflight), which does not allow it.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        what, where = "the body is not said to be JSON", "header Content-Type"
        raise HttpError(415, what, where=where, fix="application/json")
    body = await request.body()
    try:
        return json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        what = f"the body is not UTF-8: byte {error.start}"
    except json.JSONDecodeError as error:
        what = f"the body is not JSON: {error.msg} at character {error.pos}"
    except RecursionError:
        what = "the body is nested too deeply"
    except ValueError:  # an integer of thousands of digits
        what = "the body holds a number that is too large"
    raise HttpError(400, what, where="body", fix='JSON such as {"text": "…"}')
