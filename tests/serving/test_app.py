"""The HTTP service: what is answered, how much at once, and what becomes of everything else."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import time
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
from bunryu.serving.middleware import HostPolicy
from bunryu.serving.schemas import Limits
from helpers.serving import Answer, FakePredictor, app_of, post, queued_texts, request_bytes, running

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


# ---- answers


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
        assert list(prediction) == ["label", "probability", "probabilities"]
        assert list(prediction["probabilities"]) == list(predictor.labels)
        assert list(prediction["probabilities"].values()) == pytest.approx(row.tolist(), abs=1e-6)
        assert prediction["label"] == predictor.labels[row.argmax()]
        assert prediction["probability"] == prediction["probabilities"][prediction["label"]]
    assert model.pop("version").count(".") == 2
    assert model == {
        "name": predictor.name,
        "labels": list(predictor.labels),
        "takes_pairs": False,
        "max_seq_length": 128,
        "runtime": "torch",
        "device": "cpu",
        "limits": {"texts": 256, "characters": 10_000, "bytes": 1 << 20},
    }


def test_the_tutorials_api(client: TestClient) -> None:
    assert client.post("/api", json="길지 않은 문장").json() == {
        "sentence": "길지 않은 문장",
        "prediction": "길다 (positive)",
        "positive_data": "길다 0.69",
        "negative_data": "짧다 0.31",
        "positive_width": "69.0%",
        "negative_width": "31.0%",
    }
    assert client.post("/api", json="").json()["prediction"] == "짧다 (negative)"
    three = FakePredictor()
    three.labels = ("a", "b", "c")
    for predictor in (three, FakePredictor(pairs=True)):
        with client_of(predictor) as other:
            assert refused(other.post("/api", json="text"))[0] == 404


def test_pairs() -> None:
    predictor = FakePredictor(pairs=True)
    with client_of(predictor) as client:
        assert client.post("/predict", json={"text": "a", "pair": "b"}).status_code == 200
        both = client.post("/predict", json={"texts": ["a", "cc"], "pairs": ["b", "dd"]})
        assert len(both.json()["predictions"]) == 2
    assert predictor.rounds[1:] == [["ab"], ["ab", "ccdd"]]  # the first is the warm-up's


# ---- refusals


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


@pytest.mark.parametrize(
    ("kind", "status"),
    [("", 415), ("text/plain", 415), ("application/json5", 415), ("Application/JSON; charset=utf-8", 200)],
)
def test_what_is_not_said_to_be_json_is_refused(client: TestClient, kind: str, status: int) -> None:
    headers = {"content-type": kind}
    assert client.post("/predict", content=b'{"text": "a"}', headers=headers).status_code == status


def test_paths_and_methods_that_do_not_exist(client: TestClient) -> None:
    assert refused(client.get("/nothing")) == (404, "Not Found")
    assert refused(client.get("/health/")) == (404, "Not Found")
    response = client.get("/predict")
    assert refused(response) == (405, "Method Not Allowed")
    assert response.headers["allow"] == "POST"


def test_five_hundred_damaged_bodies_and_then_a_good_one(client: TestClient) -> None:
    draw, statuses = random.Random(29), []
    for path in ["/predict", "/api"] * 250:
        body = bytearray(
            '{"texts": ["좋은 영화", "a\\u0001b"]}'.encode() if path == "/predict" else b'"text"'
        )
        for _ in range(draw.randrange(1, 3)):
            body[draw.randrange(len(body))] = draw.randrange(256)
        response = client.post(path, content=bytes(body), headers=JSON)
        statuses.append(response.status_code if response.status_code == 200 else refused(response)[0])
    assert set(statuses) == {200, 400, 422}
    assert client.post("/predict", json={"text": "좋다"}).json()["label"] == "길다"


# ---- too much at once


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
            short, long = answer.json["probabilities"].values()
            assert long / short == pytest.approx(2.718281828 ** (length / 10), rel=1e-3)
        else:
            assert (answer.status, answer.what) == (503, "too many texts are waiting")
            assert answer.headers["retry-after"] == "1"


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
    lines: list[Any] = []
    with running(app_of(predictor, None, lines.append)) as (port, _):
        predictor.reached.clear()
        predictor.gate.clear()
        with socket.create_connection(("127.0.0.1", port)) as first:
            first.sendall(request_bytes("/predict", b'{"text": "first"}'))
            assert predictor.reached.wait(30)
            with socket.create_connection(("127.0.0.1", port)) as other:
                other.sendall(request_bytes("/predict", b'{"text": "gone"}'))
                assert asyncio.run(queued_texts(port, least=2)) == 2
            until = time.monotonic() + 30
            while not any(line["status"] == 499 for line in lines):
                assert time.monotonic() < until
                time.sleep(0.01)
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


# ---- browsers


def test_every_answer_carries_the_policy_and_none_lets_another_origin_in(client: TestClient) -> None:
    asks = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    preflight = client.options("/predict", headers=asks)
    assert preflight.status_code == 405
    for response in (preflight, *map(client.get, ("/", "/docs", "/model", "/no"))):
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert re.search(r"; script-src 'sha256-[\w+/]+='; style-src 'sha256-", policy)
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_a_forged_host_is_refused_and_an_allowed_one_may_frame_the_page() -> None:
    with client_of(FakePredictor(), Settings(HostPolicy(names=("*.tunnel.example",)))) as client:
        assert refused(client.get("/", headers={"host": "evil.example"}))[0] == 400
        response = client.get("/", headers={"host": "abc.tunnel.example"})
    assert response.status_code == 200
    assert response.headers["content-security-policy"].endswith(" https://*.tunnel.example")


# ---- its own description


def test_what_needs_the_token_is_refused_without_and_described() -> None:
    with client_of(FakePredictor(), Settings(token=TOKEN)) as client:
        response = client.get("/openapi.json")
        assert refused(response) == (401, "the token is missing or wrong")
        assert response.headers["www-authenticate"] == "Bearer"
        api = client.get("/openapi.json", headers=BEARER).json()
    assert api["security"] == [{"token": []}]
    assert api["components"]["securitySchemes"]["token"] == {"type": "http", "scheme": "bearer"}
    assert api["paths"]["/health"]["get"]["security"] == []


def test_the_description_and_the_docs_say_what_the_service_does(client: TestClient) -> None:
    api, docs = client.get("/openapi.json").json(), client.get("/docs").text
    assert sorted(api["paths"]) == ["/api", "/health", "/model", "/predict"]
    statuses = set(api["paths"]["/predict"]["post"]["responses"])
    assert statuses == {"200", "400", "401", "408", "413", "415", "422", "500", "503"}
    assert "security" not in api
    assert "at most 10000 characters" in docs
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
def test_the_service_is_as_it_describes_itself(
    described: Any, path: str, method: str, mode: schemathesis.GenerationMode
) -> None:
    cases: list[schemathesis.Case] = []

    @settings(max_examples=30, derandomize=True, deadline=None, database=None)
    @given(described[path][method].as_strategy(generation_mode=mode))
    def check(case: schemathesis.Case) -> None:
        case.call_and_validate(timeout=30)
        cases.append(case)

    check()
    assert len(cases) >= 1
