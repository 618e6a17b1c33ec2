"""The HTTP service: what is answered, how much at once, and what becomes of everything else."""

from __future__ import annotations

import asyncio
import json
import math
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import given, settings
from starlette.testclient import TestClient

from bunryu.inference.opening import open_predictor
from bunryu.metrics import softmax
from bunryu.runs.run import Run
from bunryu.serving.app import Settings
from bunryu.serving.handlers import positive_class
from bunryu.serving.middleware import HostPolicy
from bunryu.serving.schemas import Limits
from helpers.serving import (
    LENGTH,
    Answer,
    FakePredictor,
    app_of,
    post,
    predict_request,
    queued_texts,
    running,
)

JSON = {"content-type": "application/json"}
TOKEN = "a-token-of-some-length"
BEARER = {"authorization": f"Bearer {TOKEN}"}


def client_of(*arguments: Any) -> TestClient:
    return TestClient(app_of(*arguments), base_url="http://localhost")


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with client_of(FakePredictor()) as client:
        yield client


def refused(response: Any) -> tuple[int, str]:
    """Status and message of an error; fails if it has another form than all errors."""
    return response.status_code, Answer(response.status_code, response.headers, response.content).what


@pytest.mark.cpus
def test_predictions_are_the_predictors(trained: Run) -> None:
    predictor = open_predictor(trained.path)
    texts = ["정말 재미있게 봤어요", "", "다시는 보고 싶지 않은 영화였습니다 " * 20]
    with client_of(predictor) as client:
        several = client.post("/predict", json={"texts": texts}).json()
        one = client.post("/predict", json={"text": texts[0]}).json()
        model = client.get("/model").json()
        assert client.get("/health").json() == {"status": "ok", "queued_texts": 0}
    assert set(several) == {"predictions"}
    assert one["probabilities"] == pytest.approx(several["predictions"][0]["probabilities"], abs=1e-6)
    for prediction, row in zip(several["predictions"], softmax(predictor.predict(texts)), strict=True):
        assert list(prediction) == ["label", "probability", "probabilities", "cut"]
        assert list(prediction["probabilities"]) == list(predictor.labels)
        assert list(prediction["probabilities"].values()) == pytest.approx(row.tolist(), abs=1e-6)
        assert prediction["label"] == predictor.labels[row.argmax()]
        assert prediction["probability"] == prediction["probabilities"][prediction["label"]]
    assert model.pop("version").count(".") == 2
    limits = {"texts": 256, "characters": 10_000, "bytes": 1 << 20}
    facts = {"takes_pairs": False, "max_seq_length": 128, "runtime": "torch", "device": "cpu"}
    assert model == {"name": predictor.name, "labels": list(predictor.labels), **facts, "limits": limits}


def test_the_tutorials_api(client: TestClient) -> None:
    said = {"sentence": "길지 않은 문장", "prediction": "길다", "cut": False}
    positive = {"positive_data": "길다 0.69", "positive_width": "69.0%"}
    negative = {"negative_data": "짧다 0.31", "negative_width": "31.0%"}
    assert client.post("/api", json="길지 않은 문장").json() == said | positive | negative
    three = FakePredictor()
    three.labels = ("a", "b", "c")
    for predictor in (three, FakePredictor(pairs=True)):
        with client_of(predictor) as other:
            assert refused(other.post("/api", json="text"))[0] == 404


@pytest.mark.parametrize(
    ("labels", "named", "positive"),
    [
        (("부정", "긍정"), None, 1),
        (("긍정", "부정"), None, 0),
        (("Positive", "Negative"), None, 0),
        (("0", "1"), None, 1),
        (("짧다", "길다"), "짧다", 0),
        (("짧다", "길다"), None, None),
        (("긍정", "positive"), None, None),
        (("긍정", "부정", "중립"), None, None),
    ],
)
def test_the_positive_class_is_the_named_one_or_the_one_whose_name_says_so(
    labels: tuple[str, ...], named: str | None, positive: int | None
) -> None:
    assert positive_class(labels, named) == positive


def test_the_tutorials_api_says_which_class_is_positive_whatever_its_id() -> None:
    predictor = FakePredictor()
    predictor.labels = ("긍정", "부정")
    with client_of(predictor) as client:
        answer = client.post("/api", json="길지 않은 문장").json()
    assert (answer["prediction"], answer["positive_data"], answer["negative_width"]) == (
        "부정 (negative)", "긍정 0.31", "69.0%",
    )  # fmt: skip


def test_the_tutorials_api_says_what_it_takes(client: TestClient) -> None:
    error = client.post("/api", json={"text": "a"}).json()["error"]
    assert (error["what"], error["fix"]) == (
        "not a string", 'a bare string: "…"; POST /predict takes {"text": "…"}',
    )  # fmt: skip


def test_an_answer_says_whether_its_text_was_cut(client: TestClient) -> None:
    texts = ["x" * (LENGTH - 2), "x" * (LENGTH - 1)]
    both = client.post("/predict", json={"texts": texts}).json()["predictions"]
    assert [prediction["cut"] for prediction in both] == [False, True]
    assert [client.post("/api", json=text).json()["cut"] for text in texts] == [False, True]


def test_a_model_is_shown_under_the_name_it_was_given() -> None:
    with client_of(FakePredictor(), Settings(name="영화 리뷰")) as client:
        assert client.get("/model").json()["name"] == "영화 리뷰"
        assert "<h1>bunryu serve: 영화 리뷰</h1>" in client.get("/docs").text


def test_pairs() -> None:
    predictor = FakePredictor(pairs=True)
    with client_of(predictor) as client:
        assert client.post("/predict", json={"text": "a", "pair": "b"}).status_code == 200
        both = client.post("/predict", json={"texts": ["a", "cc"], "pairs": ["b", "dd"]})
        assert len(both.json()["predictions"]) == 2
        assert '{"text": "정말 재미있게 봤어요", "pair": "' in client.get("/openapi.json").text
    assert predictor.rounds[1:] == [["ab"], ["ab", "ccdd"]]  # the first is the warm-up's


@pytest.mark.parametrize(
    ("body", "status", "what"),
    [
        (b"", 400, "the body is not JSON: Expecting value at character 0"),
        (b"\xff\xfe", 400, "the body is not UTF-8: byte 0"),
        (b'{"text": ' + b"[" * 200_000, 400, "the body is nested too deeply"),
        (b'{"text": ' + b"9" * 5000 + b"}", 400, "the body holds a number that is too large"),
        (b'{"text": "' + b"a" * (10 << 20) + b'"}', 413, "the body has more than 1048576 bytes"),
    ],
)
def test_bodies_that_are_refused(client: TestClient, body: bytes, status: int, what: str) -> None:
    response = client.post("/predict", content=body, headers=JSON)
    found, message = refused(response)
    assert (found, message[: len(what)]) == (status, what)
    assert len(response.content) < 400


def test_what_is_not_said_to_be_json_is_refused(client: TestClient) -> None:
    kinds = ["", "text/plain", "application/json5", "Application/JSON; charset=utf-8"]
    sent = [client.post("/predict", content=b'"a"', headers={"content-type": kind}) for kind in kinds]
    assert [response.status_code for response in sent] == [415, 415, 415, 422]


def test_paths_and_methods_that_do_not_exist(client: TestClient) -> None:
    assert refused(client.get("/nothing")) == (404, "Not Found")
    response = client.get("/predict")
    assert refused(response) == (405, "Method Not Allowed")
    assert response.headers["allow"] == "POST"


def test_a_flood_is_answered_rightly_or_not_at_all() -> None:
    predictor = FakePredictor()
    limits = Settings(limits=Limits(texts=4), capacity=16)

    async def flood(port: int) -> list[Answer]:
        predictor.gate.clear()
        asked = [asyncio.create_task(post(port, {"text": "x" * length})) for length in range(200)]
        refusals = 0
        for answer in asyncio.as_completed(asked):
            refusals += (await answer).status == 503
            if refusals == 184:
                predictor.gate.set()
        return await asyncio.gather(*asked)

    with running(app_of(predictor, limits)) as (port, _):
        answers = asyncio.run(flood(port))
    assert [answer.status for answer in answers].count(200) == 16
    for length, answer in enumerate(answers):
        if answer.status == 200:
            assert answer.json["probabilities"]["길다"] == pytest.approx(1 / (1 + math.exp(-length / 10)))
        else:
            assert (answer.what, answer.headers["retry-after"]) == ("too many texts are waiting", "1")


def test_a_request_whose_time_is_up_is_answered_503() -> None:
    predictor = FakePredictor()
    with client_of(predictor, Settings(deadline=0.1)) as client:
        predictor.gate.clear()
        response = client.post("/predict", json={"text": "a"})
        predictor.gate.set()
    assert refused(response) == (503, "the answer was not ready within 0.1 s")
    assert response.headers["retry-after"] == "1"


def test_a_client_that_has_gone_costs_no_inference() -> None:
    predictor = FakePredictor()
    gone = threading.Event()
    with running(app_of(predictor, None, lambda line: line["status"] == 499 and gone.set())) as (port, _):
        predictor.reached.clear()
        predictor.gate.clear()
        with socket.create_connection(("127.0.0.1", port)) as first:
            first.sendall(predict_request(b'{"text": "first"}'))
            assert predictor.reached.wait(30)
            with socket.create_connection(("127.0.0.1", port)) as other:
                other.sendall(predict_request(b'{"text": "gone"}'))
                assert asyncio.run(queued_texts(port, least=2)) == 2
            assert gone.wait(30)
            predictor.gate.set()
            assert first.recv(1 << 16).startswith(b"HTTP/1.1 200")
    assert predictor.batches[1:] == [["first"]]


def test_the_log_tells_failures_and_holds_neither_texts_nor_queries_nor_tokens() -> None:
    lines: list[Any] = []
    with client_of(FakePredictor(), Settings(token=TOKEN), lines.append) as client:
        failed = client.post("/predict?q=canary", json={"texts": ["canary", "poison"]}, headers=BEARER)
        client.post("/predict", json={"text": "canary" * 9999}, headers=BEARER)
        client.get(f"/docs?token={TOKEN}")
    assert refused(failed) == (500, "the service failed to answer")
    assert lines.pop(0)["error"] == "RuntimeError: the network failed"
    found = [(line["path"], line["status"], line["texts"]) for line in lines]
    assert found == [("/predict", 500, 2), ("/predict", 422, 0), ("/docs", 200, 0)]
    assert re.search("canary|token", json.dumps(lines)) is None


def test_every_answer_carries_the_policy_and_none_lets_another_origin_in() -> None:
    asks = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    with client_of(FakePredictor(), Settings(HostPolicy(names=("*.tunnel.example",)))) as client:
        forged = client.get("/", headers={"host": "evil.example"})
        framed = client.get("/", headers={"host": "abc.tunnel.example"})
        preflight = client.options("/predict", headers=asks)
        others = [client.get(path) for path in ("/docs", "/model", "/no")]
    assert [response.status_code for response in (forged, framed, preflight)] == [400, 200, 405]
    for response in (forged, framed, preflight, *others):
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert policy.endswith(" https://*.tunnel.example")
        assert re.search(r"; script-src 'sha256-[\w+/]+='; style-src 'sha256-", policy)
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_what_needs_the_token_is_refused_without_and_described() -> None:
    with client_of(FakePredictor(), Settings(token=TOKEN)) as client:
        response = client.get("/openapi.json")
        api = client.get("/openapi.json", headers=BEARER).json()
    assert refused(response) == (401, "the token is missing or wrong")
    assert response.headers["www-authenticate"] == "Bearer"
    assert api["security"] == [{"token": []}]
    assert api["components"]["securitySchemes"]["token"] == {"type": "http", "scheme": "bearer"}
    assert api["paths"]["/health"]["get"]["security"] == []


def test_the_description_and_the_docs_say_what_the_service_does(client: TestClient) -> None:
    api, docs = client.get("/openapi.json").json(), client.get("/docs").text
    assert sorted(api["paths"]) == ["/api", "/health", "/model", "/predict"]
    statuses = set(api["paths"]["/predict"]["post"]["responses"])
    assert statuses == {"200", "400", "401", "408", "413", "415", "422", "500", "503"}
    assert "security" not in api
    assert '"maxItems": 256' in json.dumps(api)
    assert "at most 10000 characters" in docs
    korean = client.get("/docs/ko").text
    assert '<html lang="ko">' in korean
    assert "10000자 이하" in korean
    assert re.findall(r">[^<>{}$]*\b(?:the|of|whether|at most)\b[^<>]*<", korean) == []
    assert "Authorization" not in docs


@pytest.fixture(scope="module")
def described() -> Iterator[Any]:
    with running(app_of(FakePredictor())) as (port, _):
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")


RIGHT = schemathesis.GenerationMode.POSITIVE


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [
        *((path, "POST", mode) for path in ("/predict", "/api") for mode in schemathesis.GenerationMode),
        ("/health", "GET", RIGHT),
        ("/model", "GET", RIGHT),
    ],
)
def test_the_service_is_as_it_says(described: Any, path: str, method: str, mode: Any) -> None:
    @settings(max_examples=30, derandomize=True, deadline=None, database=None)
    @given(described[path][method].as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(timeout=30)

    check()
