"""The HTTP service: what is answered, to whom, how much at once, and what becomes of everything else."""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import schemathesis
from hypothesis import given, settings
from starlette.testclient import TestClient

from bunryu.inference.opening import open_predictor
from bunryu.inference.predictor import Predictor
from bunryu.metrics import softmax
from bunryu.runs.run import Run
from bunryu.serving.app import Settings, create_app
from bunryu.serving.middleware import HostPolicy
from bunryu.serving.schemas import Limits
from helpers.serving import Answer, FakePredictor, ignore, post, request_bytes, running, server_of

TEXTS = ["정말 재미있게 봤어요", "시간이 아까웠다", "", "보통", "다시는 보고 싶지 않은 영화였습니다 " * 20]


@pytest.fixture(scope="module")
def predictor(trained: Run) -> Predictor:
    return open_predictor(trained.path)


def client_of(predictor: Any, given: Settings | None = None, log: Any = ignore) -> TestClient:
    return TestClient(create_app(predictor, given or Settings(), log), base_url="http://localhost")


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[TestClient]:
    with client_of(predictor) as client:
        yield client


@pytest.fixture
def fake() -> Iterator[TestClient]:
    with client_of(FakePredictor()) as client:
        yield client


def refused(response: Any) -> tuple[int, str]:
    """Status and message of an error; fails if it has another form than all errors."""
    assert response.headers["content-type"] == "application/json"
    assert "Traceback" not in response.text
    error = response.json()["error"]
    assert set(error) == {"what", "where", "fix"}
    return response.status_code, error["what"]


# ---- answers


@pytest.mark.cpus
def test_predictions_are_the_predictors(client: TestClient, predictor: Predictor) -> None:
    answer = client.post("/predict", json={"texts": TEXTS}).json()
    assert set(answer) == {"predictions"}
    expected = softmax(predictor.predict(TEXTS))
    for prediction, row in zip(answer["predictions"], expected, strict=True):
        assert list(prediction) == ["label", "probability", "probabilities"]
        assert list(prediction["probabilities"]) == list(predictor.labels)
        assert list(prediction["probabilities"].values()) == pytest.approx(row.tolist(), abs=1e-6)
        assert prediction["label"] == predictor.labels[row.argmax()]
        assert prediction["probability"] == prediction["probabilities"][prediction["label"]]


def test_one_document_is_answered_without_a_list(client: TestClient) -> None:
    one = client.post("/predict", json={"text": TEXTS[0]}).json()
    (same,) = client.post("/predict", json={"texts": TEXTS[:1]}).json()["predictions"]
    assert one == same


def test_the_tutorials_api(fake: TestClient) -> None:
    assert fake.post("/api", json="길지 않은 문장").json() == {
        "sentence": "길지 않은 문장",
        "prediction": "길다 (positive)",
        "positive_data": "길다 0.69",
        "negative_data": "짧다 0.31",
        "positive_width": "69.0%",
        "negative_width": "31.0%",
    }
    assert fake.post("/api", json="").json()["prediction"] == "짧다 (negative)"


def test_the_tutorials_api_is_for_two_classes_and_single_texts() -> None:
    three, pairs = FakePredictor(), FakePredictor(pairs=True)
    three.labels = ("a", "b", "c")
    for predictor in (three, pairs):
        with client_of(predictor) as client:
            assert refused(client.post("/api", json="text"))[0] == 404


def test_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = FakePredictor(pairs=True)
    with client_of(predictor) as client:
        assert client.post("/predict", json={"text": "a", "pair": "b"}).status_code == 200
        both = client.post("/predict", json={"texts": ["a", "cc"], "pairs": ["b", "dd"]})
        assert len(both.json()["predictions"]) == 2
        response = client.post("/predict", json={"text": "a"})
        assert response.json()["error"]["fix"].startswith("this model takes pairs of texts")
    assert predictor.rounds[1:] == [["ab"], ["ab", "ccdd"]]  # the first is the warm-up's


def test_facts(client: TestClient, predictor: Predictor) -> None:
    assert client.get("/health").json() == {"status": "ok", "queued_texts": 0}
    facts = client.get("/model").json()
    assert facts.pop("version").count(".") == 2
    assert facts == {
        "name": predictor.name,
        "labels": list(predictor.labels),
        "takes_pairs": False,
        "max_seq_length": 128,
        "runtime": "torch",
        "device": "cpu",
        "limits": {"texts": 256, "characters": 10_000, "bytes": 1 << 20},
    }


@pytest.mark.cpus
def test_many_clients_get_the_answers_that_belong_to_them(predictor: Predictor) -> None:
    draw = random.Random(3)
    words = [word for text in TEXTS for word in text.split()]
    requests = [
        [" ".join(draw.choices(words, k=draw.randrange(30))) for _ in range(draw.randrange(1, 6))]
        for _ in range(120)
    ]

    async def ask(port: int) -> list[Answer]:
        return await asyncio.gather(*(post(port, {"texts": texts}) for texts in requests))

    with running(create_app(predictor, Settings(), ignore)) as port:
        answers = asyncio.run(ask(port))
    for texts, answer in zip(requests, answers, strict=True):
        assert answer.status == 200
        assert_same(answer.json["predictions"], predictor, texts)


def assert_same(predictions: Any, predictor: Predictor, texts: list[str]) -> None:
    found = np.array([list(prediction["probabilities"].values()) for prediction in predictions])
    assert np.abs(found - softmax(predictor.predict(texts))).max() < 1e-6


# ---- refusals


@pytest.mark.parametrize(
    ("body", "status", "what"),
    [
        (b"", 400, "the body is not JSON: Expecting value at character 0"),
        (b'{"text": "a"', 400, "the body is not JSON: Expecting ',' delimiter at character 12"),
        (b"\xff\xfe", 400, "the body is not UTF-8: byte 0"),
        (b'\xef\xbb\xbf{"text": "a"}', 400, "the body is not JSON: Unexpected UTF-8 BOM"),
        (b'{"text": ' + b"[" * 200_000, 400, "the body is nested too deeply"),
        (b'{"text": ' + b"9" * 5000 + b"}", 400, "the body holds a number that is too large"),
        (b'{"text": 1e999}', 422, "not a string"),
        (b'{"text": NaN}', 422, "not a string"),
        (b'{"text": "\\ud800"}', 422, "a text holds half a surrogate pair, which is no character"),
        (b'{"text": "\\u0000"}', 422, "a text holds a NUL character"),
        (b'{"text": "a\nb"}', 400, "the body is not JSON: Invalid control character"),
        (b'{"texts": []}', 422, "no texts"),
        (b'{"texts": [' + b'"a",' * 9999 + b'"a"]}', 422, "more than 256 texts in one request"),
        (b'{"text": "' + b"a" * 10_001 + b'"}', 422, "a text has more than 10000 characters"),
        (b'{"text": "' + b"a" * (10 << 20) + b'"}', 413, "the body has more than 1048576 bytes"),
        (b'"text"', 422, "not an object"),
    ],
)
def test_bodies_that_are_refused(fake: TestClient, body: bytes, status: int, what: str) -> None:
    response = fake.post("/predict", content=body, headers={"content-type": "application/json"})
    found, message = refused(response)
    assert (found, message[: len(what)]) == (status, what)
    assert len(response.content) < 400
    assert fake.post("/predict", json={"text": "a\tb\x7f"}).json()["label"] == "길다"


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/json5"])
def test_other_types_of_content_are_refused(fake: TestClient, kind: str) -> None:
    response = fake.post("/predict", content=b'{"text": "a"}', headers={"content-type": kind})
    assert refused(response) == (415, "the body is not said to be JSON")


def test_a_charset_may_be_said(fake: TestClient) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert fake.post("/predict", content=b'{"text": "a"}', headers=headers).status_code == 200


def test_paths_and_methods_that_do_not_exist(fake: TestClient) -> None:
    assert refused(fake.get("/nothing")) == (404, "Not Found")
    assert refused(fake.get("/health/")) == (404, "Not Found")
    response = fake.get("/predict")
    assert refused(response) == (405, "Method Not Allowed")
    assert response.headers["allow"] == "POST"


def fuzzed(draw: random.Random) -> bytes:
    """A body that is hardly ever right: a good one damaged, or JSON of any shape, or noise."""
    kind = draw.randrange(3)
    if kind == 0:
        good = bytearray(json.dumps({"texts": ["좋은 영화", "a\u0001b"]}, ensure_ascii=False).encode())
        for _ in range(draw.randrange(1, 6)):
            good[draw.randrange(len(good))] = draw.randrange(256)
        return bytes(good)
    if kind == 1:
        leaves = [None, True, -1, 1e308, "", "\ud800", "\x00", [], {}, "x" * 20_000, [[["a"]]], 10**400]
        keys = draw.choices(["text", "texts", "pair", "pairs", "", "\x00", "__class__"], k=3)
        value = draw.choice([draw.choice(leaves), [draw.choice(leaves) for _ in range(300)]])
        return json.dumps(draw.choice([value, dict.fromkeys(keys, value)])).encode()
    return draw.randbytes(draw.randrange(200))


def test_five_hundred_fuzzed_bodies_and_then_a_good_one(fake: TestClient) -> None:
    draw = random.Random(29)
    statuses = []
    for _ in range(500):
        path = draw.choice(["/predict", "/api"])
        response = fake.post(path, content=fuzzed(draw), headers={"content-type": "application/json"})
        statuses.append(response.status_code)
        if response.status_code != 200:
            refused(response)
    assert set(statuses) == {200, 400, 413, 422}
    assert statuses.count(200) < 50
    assert fake.post("/predict", json={"text": "좋다"}).json()["label"] == "길다"


# ---- too much at once


class Gated:
    """A real predictor behind a gate that tests open."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.gate = threading.Event()
        self.gate.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._predictor, name)

    def logits(self, *arguments: Any) -> Any:
        assert self.gate.wait(30)
        return self._predictor.logits(*arguments)


def test_a_flood_is_answered_rightly_or_not_at_all(predictor: Predictor) -> None:
    gated = Gated(predictor)
    texts = [f"{number}번째 손님의 문장" for number in range(200)]
    tiny = Settings(limits=Limits(texts=4), capacity=16)

    async def flood(port: int) -> list[Answer]:
        gated.gate.clear()
        asked = [asyncio.create_task(post(port, {"text": text})) for text in texts]
        refusals = 0
        for answer in asyncio.as_completed(asked):
            refusals += (await answer).status == 503
            if refusals == 184:
                gated.gate.set()
        return await asyncio.gather(*asked)

    with running(create_app(gated, tiny, ignore)) as port:  # type: ignore[arg-type]
        answers = asyncio.run(flood(port))
    accepted = [number for number, answer in enumerate(answers) if answer.status == 200]
    assert len(accepted) == 16
    assert_same([answers[n].json for n in accepted], predictor, [texts[n] for n in accepted])
    for answer in answers:
        if answer.status != 200:
            assert (answer.status, answer.what) == (503, "too many texts are waiting")
            assert answer.headers["retry-after"] == "1"


def test_a_request_whose_time_is_up_is_told_so() -> None:
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
    with running(create_app(predictor, Settings(), lines.append)) as port:  # type: ignore[arg-type]
        predictor.reached.clear()
        predictor.gate.clear()
        with socket.create_connection(("127.0.0.1", port)) as first:
            first.sendall(request_bytes("/predict", b'{"text": "first"}'))
            assert predictor.reached.wait(30)
            with socket.create_connection(("127.0.0.1", port)) as other:
                other.sendall(request_bytes("/predict", b'{"text": "gone"}'))
                while asyncio.run(queued(port)) < 2:
                    pass
            while not any(line["status"] == 499 for line in lines):
                time.sleep(0.01)
            predictor.gate.set()
            assert first.recv(1 << 16).startswith(b"HTTP/1.1 200")
    assert ["gone"] not in predictor.batches
    assert ["first"] in predictor.batches


async def queued(port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return int(json.loads(answer.partition(b"\r\n\r\n")[2])["queued_texts"])


def test_a_failing_model_is_an_answer_and_a_line_of_the_log() -> None:
    lines: list[Any] = []
    with client_of(FakePredictor(), log=lines.append) as client:
        assert refused(client.post("/predict", json={"text": "poison"})) == (
            500,
            "the service failed to answer",
        )
        assert client.post("/predict", json={"text": "good"}).status_code == 200
    failed, access, _ = lines
    assert failed["error"] == "RuntimeError: the network failed"
    assert (access["path"], access["status"], access["texts"]) == ("/predict", 500, 1)


def test_the_log_holds_neither_texts_nor_queries_nor_tokens() -> None:
    lines: list[Any] = []
    token = "a-token-of-some-length"
    with client_of(FakePredictor(), Settings(token=token), lines.append) as client:
        headers = {"authorization": f"Bearer {token}"}
        client.post("/predict?q=canary", json={"texts": ["canary", "b"]}, headers=headers)
        client.post("/predict", json={"text": "canary" * 9999}, headers=headers)
        client.get(f"/docs?token={token}")
    assert [(line["status"], line["texts"]) for line in lines] == [(200, 2), (422, 0), (200, 0)]
    assert [line["path"] for line in lines] == ["/predict", "/predict", "/docs"]
    assert re.search("canary|token", json.dumps(lines)) is None


# ---- browsers


def test_pages_and_answers_carry_the_policy(fake: TestClient) -> None:
    for response in (fake.get("/"), fake.get("/docs"), fake.get("/model"), fake.get("/nothing")):
        policy = dict(part.split(" ", 1) for part in response.headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == "'self' http://localhost:* http://127.0.0.1:*"
        assert "unsafe" not in response.headers["content-security-policy"]
        assert re.fullmatch(r"'sha256-[\w+/]+='( 'sha256-[\w+/]+=')*", policy["script-src"])
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_a_cross_origin_page_gets_no_leave(fake: TestClient) -> None:
    asks = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    response = fake.options("/predict", headers=asks)
    assert response.status_code == 405
    assert not [name for name in response.headers if name.startswith("access-control")]
    simple = fake.post("/predict", content=b'{"text": "a"}', headers={"content-type": "text/plain"})
    assert simple.status_code == 415


def test_a_forged_host_is_refused_and_an_allowed_one_may_frame_the_page() -> None:
    with client_of(FakePredictor(), Settings(HostPolicy(names=("*.tunnel.example",)))) as client:
        for path in ("/", "/health", "/model", "/nothing"):
            response = client.get(path, headers={"host": "evil.example"})
            assert refused(response)[0] == 400
        response = client.get("/", headers={"host": "abc.tunnel.example"})
        assert response.status_code == 200
        assert response.headers["content-security-policy"].endswith(
            "frame-ancestors 'self' http://localhost:* http://127.0.0.1:* https://*.tunnel.example"
        )


def test_the_token() -> None:
    token = "a-token-of-some-length"
    with client_of(FakePredictor(), Settings(token=token)) as client:
        open_paths = {path: client.get(path).status_code for path in ("/", "/health", "/model", "/docs")}
        assert open_paths == {"/": 200, "/health": 200, "/model": 401, "/docs": 401}
        response = client.get("/model")
        assert refused(response) == (401, "the token is missing or wrong")
        assert response.headers["www-authenticate"] == "Bearer"
        assert client.get("/model", headers={"authorization": f"Bearer {token}"}).status_code == 200
        assert client.get("/docs", params={"token": token}).status_code == 200


def test_the_docs_say_what_the_service_does(fake: TestClient) -> None:
    docs = fake.get("/docs").text
    for path in ("/predict", "/api", "/health", "/model"):
        assert f"<code>{path}</code>" in docs
    assert "at most 10000 characters" in docs
    assert "Authorization" not in docs


# ---- its own description


@pytest.fixture(scope="module")
def described() -> Iterator[Any]:
    with server_of(create_app(FakePredictor(), Settings(), ignore)) as (port, _):  # type: ignore[arg-type]
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")


RIGHT, WRONG = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE


@pytest.mark.parametrize(
    ("path", "method", "mode"),
    [
        ("/predict", "POST", RIGHT),
        ("/predict", "POST", WRONG),
        ("/api", "POST", RIGHT),
        ("/api", "POST", WRONG),
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


def test_every_error_is_described(fake: TestClient) -> None:
    api = fake.get("/openapi.json").json()
    assert sorted(api["paths"]) == ["/api", "/health", "/model", "/predict"]
    statuses = set(api["paths"]["/predict"]["post"]["responses"])
    assert statuses == {"200", "400", "401", "408", "413", "415", "422", "500", "503"}
    assert "security" not in api


def test_the_description_says_what_needs_a_token() -> None:
    token = "a-token-of-some-length"
    with client_of(FakePredictor(), Settings(token=token)) as client:
        api = client.get("/openapi.json", headers={"authorization": f"Bearer {token}"}).json()
    assert api["security"] == [{"token": []}]
    assert api["components"]["securitySchemes"]["token"] == {"type": "http", "scheme": "bearer"}
    assert api["paths"]["/health"]["get"]["security"] == []
