"""The page of ``bunryu serve`` and its docs page, in a real browser without a window."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Route, expect, sync_playwright

from bunryu.inference.opening import open_predictor
from bunryu.runs.run import Run
from bunryu.serving.app import Settings
from helpers.serving import app_of, running

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome")

TOKEN = "a-token-of-some-length"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
SENTENCE, OTHER = "돈이 하나도 안아깝다 두번 봐야지", "후속편 예고하느라 두시간 쓴 영화"

Handler = Callable[[Route], None]


@pytest.fixture(scope="module")
def url(trained: Run) -> Iterator[str]:
    """The address of a service that wants a token."""
    with running(app_of(open_predictor(trained.path), Settings(token=TOKEN))) as (port, _):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Visitor:
    """Opens pages, each in a fresh profile; collects what they ask for and complain about."""

    browser: Browser
    url: str
    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, path: str = f"?token={TOKEN}", locale: str = "ko-KR", **options: Any) -> Page:
        context = self.browser.new_context(locale=locale, **options)
        context.set_default_timeout(10_000)
        context.on("request", lambda request: self.requests.append(request))
        context.on("console", self._hear)
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        page = context.new_page()
        page.goto(self.url + path)
        return page

    def _hear(self, message: ConsoleMessage) -> None:
        # The browser's own line for an answer of 4xx or 5xx: the tests that provoke it look at the page.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.complaints.append(message.text)

    def sent(self, path: str = "predict") -> list[Request]:
        return [request for request in self.requests if request.url.endswith(f"/{path}")]


@pytest.fixture
def visitor(browser: Browser, url: str) -> Iterator[Visitor]:
    """At the end nothing may have left the origin, and no page may have complained."""
    visitor = Visitor(browser, url)
    yield visitor
    for context in browser.contexts:
        context.close()
    assert [r.url for r in visitor.requests if not r.url.startswith((url, "data:"))] == []
    assert visitor.complaints == []


def answering(body: object, status: int = 200, **headers: str) -> Handler:
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    kind = "text/html" if isinstance(body, str) else "application/json"
    return lambda route: route.fulfill(status=status, body=text, headers={"Content-Type": kind, **headers})


def disconnected(route: Route) -> None:
    route.abort("connectionrefused")


def serve_instead(page: Page, probabilities: dict[str, float], **facts: object) -> None:
    """Let another model answer from now on, always with these probabilities of its classes."""
    limits = {"texts": 64, "characters": 1000, "bytes": 100_000}
    model = {"name": "made-up", "labels": list(probabilities), "takes_pairs": False, "max_seq_length": 64}
    model |= {"limits": limits, "runtime": "torch", "device": "cpu", "version": "0", **facts}
    label = max(probabilities, key=lambda name: probabilities[name])
    answer = {"label": label, "probability": probabilities[label], "probabilities": probabilities}
    page.route("**/model", answering(model))
    page.route("**/predict", answering(answer))


def submit(page: Page, sentence: str) -> None:
    page.fill("#text", sentence)
    page.press("#text", "Enter")


def classify(page: Page, sentence: str) -> None:
    submit(page, sentence)
    expect(page.locator("#sentence")).to_have_text(sentence)
    expect(page.locator("#result")).to_have_attribute("aria-busy", "false")


def recent_sentences(page: Page) -> list[str]:
    return page.locator("#recent .words").all_text_contents()


def focused(page: Page) -> str:
    """The id or else the text of what has the keyboard."""
    return str(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))


def press(page: Page, *keys: str) -> str:
    """Type texts and press keys, known by their English names; returns what then has the keyboard."""
    for key in keys:
        (page.keyboard.press if re.match("Enter|Tab|Shift|Control", key) else page.keyboard.type)(key)
    return focused(page)


def test_the_page_shows_the_model_and_what_predict_answers(visitor: Visitor, url: str) -> None:
    page = visitor.open()
    model = page.request.get(f"{url}model", headers=BEARER).json()
    answer = page.request.post(f"{url}predict", headers=BEARER, data={"text": SENTENCE}).json()
    expect(page).to_have_title(f"문장 분류 · {model['name']}")
    assert page.text_content("#model") == model["name"]
    assert page.text_content("#classes") == "클래스 2개: 부정, 긍정"
    assert page.text_content("#machine") == f"최대 128토큰 · torch · cpu · bunryu {model['version']}"
    assert page.is_hidden("#pair")
    classify(page, SENTENCE)
    assert page.text_content("#label") == answer["label"]
    assert page.text_content("#probability") == f"{answer['probability']:.2%}"
    rows = page.locator("#bars li").all()
    for row, (name, probability) in zip(rows, answer["probabilities"].items(), strict=True):
        assert row.locator(".name").text_content() == name + (" (예측)" if name == answer["label"] else "")
        assert row.locator("data").text_content() == f"{probability:.2%}"
        width = row.locator(".fill").evaluate("bar => bar.style.width")
        assert float(width.removesuffix("%")) == pytest.approx(100 * probability, abs=1e-3)
    assert re.fullmatch(r"응답까지 [\d,]+ms", page.text_content("#time") or "")
    expect(page.locator("#spoken")).to_have_text(f"{answer['label']} {answer['probability']:.2%}")


def test_another_model_is_noticed_and_its_many_classes_are_shown_in_their_order(visitor: Visitor) -> None:
    page = visitor.open()
    expect(page.locator("#model")).not_to_have_text("")
    labels = [f"분야 {i}" if i % 2 else str(200 - i) for i in range(120)]  # "200" before "2": no number order
    serve_instead(page, {name: 0.6 if i == 100 else 0.4 / 119 for i, name in enumerate(labels)})
    classify(page, SENTENCE)
    shown = page.locator("#bars .name").all_text_contents()
    assert [name.removesuffix(" (예측)") for name in shown] == labels
    assert (page.text_content("#model"), page.text_content("#classes")) == ("made-up", "클래스 120개")
    bars, row = page.locator("#bars").bounding_box(), page.locator("#bars .predicted").bounding_box()
    assert bars and row and bars["y"] < row["y"] < bars["y"] + bars["height"]


def test_a_model_of_pairs_asks_for_two_sentences_also_in_a_narrow_window(visitor: Visitor) -> None:
    page = visitor.open(viewport={"width": 320, "height": 640})
    serve_instead(page, {"아주긴클래스이름" * 12: 0.9, "모순": 0.1}, takes_pairs=True)
    page.reload()
    expect(page.locator("#pair")).to_be_visible()
    page.fill("#text", SENTENCE * 9)
    page.fill("#pair", " \n ")
    page.click("#form button")
    expect(page.get_by_role("alert")).to_have_text("분류할 문장을 입력하세요.")
    assert focused(page) == "pair"
    press(page, "Control+a", "x" * 300, "Enter")
    expect(page.locator("#other-sentence")).to_have_text("x" * 300)
    (request,) = visitor.sent()
    assert request.post_data_json == {"text": SENTENCE * 9, "pair": "x" * 300}
    assert recent_sentences(page) == [f"{SENTENCE * 9} / {'x' * 300}"]
    assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_an_answer_that_was_overtaken_is_not_shown(visitor: Visitor) -> None:
    page = visitor.open()
    held: list[Route] = []
    page.route("**/predict", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/predict"):
        submit(page, SENTENCE)
    with page.expect_event("requestfailed") as given_up:
        classify(page, OTHER)
    assert given_up.value.post_data_json == {"text": SENTENCE}
    assert (recent_sentences(page), page.text_content("#failure")) == ([OTHER], "")


def test_everything_can_be_done_with_the_keyboard(visitor: Visitor) -> None:
    page, two_lines = visitor.open(), f"{OTHER}\n둘째 줄"
    assert focused(page) == "text"
    press(page, OTHER, "Shift+Enter", "둘째 줄", "Enter")
    expect(page.locator("#sentence")).to_have_text(two_lines)
    press(page, "Control+a", SENTENCE, "Enter")
    expect(page.locator("#sentence")).to_have_text(SENTENCE)
    stops = [press(page, "Tab") for _ in range(4)]
    assert (stops[0], stops[1][: len(SENTENCE)], stops[3]) == ("분류", SENTENCE, "docs")
    press(page, "Shift+Tab", "Enter")
    expect(page.locator("#sentence")).to_have_text(two_lines)
    texts = [request.post_data_json["text"] for request in visitor.sent()]
    assert texts == [two_lines, SENTENCE, two_lines]


def test_enter_that_ends_a_syllable_does_not_send(visitor: Visitor) -> None:
    page = visitor.open()
    page.focus("#text")
    keyboard = page.context.new_cdp_session(page)
    keyboard.send("Input.imeSetComposition", {"text": "한", "selectionStart": 1, "selectionEnd": 1})
    page.keyboard.press("Enter")
    # Safari ends the composition first, and says so by the code alone.
    page.dispatch_event("#text", "keydown", {"key": "Enter", "keyCode": 229})
    keyboard.send("Input.insertText", {"text": "한"})
    classify(page, "한글")
    assert [request.post_data_json for request in visitor.sent()] == [{"text": "한글"}]


def test_nothing_is_sent_that_is_too_long(visitor: Visitor) -> None:
    page = visitor.open()
    serve_instead(page, {"정치": 0.9, "경제": 0.1})
    page.reload()
    expect(page.locator("#model")).to_have_text("made-up")
    assert page.is_hidden("#examples")  # of reviews, which this model is not about
    page.fill("#text", "가🙂" * 500)
    assert page.text_content("#text-counter") == "1,000 / 1,000자"
    assert page.get_attribute("#text", "aria-invalid") == "false"
    submit(page, "가🙂" * 500 + "다")
    assert page.get_attribute("#text", "aria-invalid") == "true"
    expect(page.get_by_role("alert")).to_have_text("문장이 너무 깁니다. 1,000자까지 보낼 수 있습니다.")
    assert visitor.sent() == []


def test_the_twenty_most_recent_sentences_are_kept_once_each_and_in_no_store(visitor: Visitor) -> None:
    page = visitor.open()
    example = page.locator("#examples button").first
    sentence = str(example.text_content())
    example.click()
    expect(page.locator("#sentence")).to_have_text(sentence)
    assert page.is_hidden("#examples")
    for number in [*range(22), 5]:
        classify(page, f"문장 {number}")
    assert recent_sentences(page) == [f"문장 {number}" for number in (5, *range(21, 5, -1), 4, 3, 2)]
    page.reload()
    expect(page.locator("#examples")).to_be_visible()
    assert (recent_sentences(page), page.evaluate("localStorage.length")) == ([], 0)


def test_what_is_typed_and_what_the_service_says_stays_text(visitor: Visitor) -> None:
    page = visitor.open()
    hostile = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
    serve_instead(page, {hostile: 0.75, "__proto__": 0.25}, name=hostile, device=hostile)
    classify(page, hostile)
    assert page.text_content("#label") == page.text_content("#model") == hostile
    assert recent_sentences(page) == [hostile]
    assert page.locator("#bars .name").all_text_contents() == [f"{hostile} (예측)", "__proto__"]
    page.route("**/predict", answering({"error": {"what": hostile, "where": hostile, "fix": hostile}}, 422))
    page.press("#text", "Enter")
    expect(page.locator("#failure dd").first).to_have_text(hostile)
    assert (page.locator("script").count(), page.locator("img").count()) == (1, 0)
    # Nor would the browser run it.
    script = "Object.assign(document.createElement('script'), {text: 'window.hacked = 1'})"
    assert page.evaluate(f"document.body.append({script}); window.hacked === undefined")
    assert "Content Security Policy" in visitor.complaints.pop()


WORDS = {"error": {"what": "the queue is full", "where": "64 texts wait", "fix": "try again"}}
SAID = list(WORDS["error"].values())
FAILURES: dict[str, tuple[Handler, str, list[str]]] = {
    "no connection": (disconnected, "서비스에 연결할 수 없습니다.", []),
    "500 in our words": (answering(WORDS, 500), "서비스에 문제가 생겼습니다(500).", SAID),
    "a proxy's 502": (answering("<h1>Bad gateway</h1>", 502), "서비스에 문제가 생겼습니다(502).", []),
    "no JSON": (answering("<h1>Sign in</h1>"), "서비스의 답을 이해할 수 없습니다.", []),
    "another JSON": (answering({"label": "긍정"}), "서비스의 답을 이해할 수 없습니다.", []),
    "null": (answering(None), "서비스의 답을 이해할 수 없습니다.", []),
    "busy": (answering(WORDS, 503, **{"Retry-After": "2"}), "서비스가 바쁩니다. 2초 후", SAID),
    "busy, no time told": (answering("", 503), "서비스가 바쁩니다. 잠시 후", []),
    "no token": (answering(WORDS, 401), "토큰이 없거나 맞지 않습니다.", []),
    "refused": (answering(WORDS, 413), "서비스가 요청을 받아들이지 않았습니다(413).", SAID),
    "strange error": (answering({"error": {"what": 5, "fix": None}}, 400), "받아들이지 않았습니다(400).", []),
}


def test_a_failing_service_shows_a_readable_message_and_the_page_recovers(visitor: Visitor) -> None:
    page = visitor.open()
    page.route("**/model", disconnected)
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("서비스에 연결할 수 없습니다.")
    page.unroute("**/model")
    for name, (handler, message, words) in FAILURES.items():
        classify(page, OTHER)
        assert page.get_by_role("alert").text_content() == "", name
        page.route("**/predict", handler)
        submit(page, SENTENCE)
        expect(page.get_by_role("alert"), name).to_contain_text(message)
        assert page.locator("#failure dd").all_text_contents() == words, name
        assert page.is_hidden("#result"), name
        assert (page.input_value("#text"), recent_sentences(page)) == (SENTENCE, [OTHER]), name
        page.unroute("**/predict")


def test_the_language_is_the_browsers_and_can_be_switched(visitor: Visitor) -> None:
    assert visitor.open(locale="de-DE").get_attribute("html", "lang") == "en"
    page = visitor.open(locale="ko")
    assert page.get_attribute("html", "lang") == "ko"
    page.route("**/predict", answering(WORDS, 503, **{"Retry-After": "2"}))
    submit(page, SENTENCE)
    expect(page.locator("#failure strong")).to_have_text("서비스가 바쁩니다. 2초 후 다시 시도하세요.")
    page.get_by_role("button", name="English").click()
    assert page.get_attribute("html", "lang") == "en"
    assert (page.text_content("h1"), page.text_content("#form button")) == ("Classify a sentence", "Classify")
    assert page.text_content("#failure strong") == "The service is busy. Try again in 2 s."
    buttons = [page.get_by_role("button", name=name) for name in ("English", "한국어")]
    assert [button.get_attribute("aria-pressed") for button in buttons] == ["true", "false"]
    words = page.evaluate("Object.entries(WORDS).map(([key, said]) => [key, said.length])")
    used = page.evaluate("[...document.querySelectorAll('[data-words]')].map(part => part.dataset.words)")
    assert {number for _, number in words} == {2}
    assert set(used) <= {key for key, _ in words}


def test_dark_where_the_system_is_dark(visitor: Visitor) -> None:
    style = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    for scheme, order in (("light", -1), ("dark", 1)):
        colours = visitor.open(color_scheme=scheme).evaluate(style)
        darker, lighter = [sum(map(int, re.findall(r"\d+", colour))) for colour in colours][::order]
        assert darker < 200 < 600 < lighter, scheme


def test_the_token_leaves_the_address_and_is_sent_as_a_header(visitor: Visitor, url: str) -> None:
    page = visitor.open(f"?token={TOKEN}&keep=1")
    assert page.url == f"{url}?keep=1"
    page.reload()
    classify(page, OTHER)
    asked_for = [*visitor.sent("model"), *visitor.sent()]
    assert {request.header_value("authorization") for request in asked_for} == {BEARER["Authorization"]}
    without = visitor.open("")
    expect(without.get_by_role("alert")).to_contain_text("토큰이 없거나 맞지 않습니다.")
    without.fill("#token", f" {TOKEN} ")
    without.press("#token", "Enter")
    expect(without.locator("#access")).to_be_hidden()
    classify(without, SENTENCE)


def test_the_docs_describe_every_path_with_a_curl_line_that_works(visitor: Visitor, url: str) -> None:
    page = visitor.open()
    page.get_by_role("link", name="API 문서").click()
    paths = page.request.get(f"{url}openapi.json", headers=BEARER).json()["paths"]
    assert page.locator("h2 code").all_text_contents() == list(paths)
    for path in paths:
        lines = page.locator("pre", has_text=f'"$URL{path}"').all_text_contents()
        assert lines != []
        assert {"Authorization: Bearer" in line for line in lines} == {path != "/health"}
    if shutil.which("curl"):
        command = page.locator("pre", has_text='"$URL/predict"').first.text_content()
        environment = {**os.environ, "URL": url.rstrip("/"), "TOKEN": TOKEN}
        done = subprocess.run(["bash", "-c", str(command)], env=environment, capture_output=True, check=True)
        assert sum(json.loads(done.stdout)["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    page.get_by_role("link", name="데모 페이지").click()
    classify(page, SENTENCE)
