"""The page of ``bunryu serve`` and its docs page, in a real browser without a window."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, Route, expect, sync_playwright

import bunryu
from bunryu.runs.run import Run

PAGES = Path(bunryu.__file__).with_name("serving") / "templates"
BUNRYU = Path(sys.executable).with_name("bunryu")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SENTENCE = "돈이 하나도 안아깝다 두번 봐야지"
OTHER = "후속편 예고하느라 두시간 쓴 영화"

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome")

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def url(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real ``bunryu serve``, ending in a slash."""
    with serving(trained, tmp_path_factory.mktemp("serve")) as (address, _):
        yield address


@contextmanager
def serving(run: Run, folder: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A real ``bunryu serve`` on a free port: the address it printed, and the process."""
    log = folder / "log"
    with log.open("w") as stream:
        command = [BUNRYU, "serve", str(run.path), "--port", "0", *options]
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT)
    try:
        yield _printed_address(process, log), process
    finally:
        process.terminate()
        process.wait(30)


def _printed_address(process: subprocess.Popen[bytes], log: Path) -> str:
    for _ in range(600):
        found = re.search(r"http://127\.0\.0\.1:\d+/\S*(?=\n)", log.read_text())
        if found:
            return found.group()
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"no address was printed: {log.read_text()}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Seen:
    """What the pages of one test asked for and complained about."""

    requests: list[Request] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def watch(self, context: BrowserContext) -> None:
        context.on("request", lambda request: self.requests.append(request))
        context.on("console", lambda message: self._told(message.type, message.text))
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))

    def _told(self, kind: str, text: str) -> None:
        # The browser's own line for an answer of 4xx or 5xx: the tests that provoke it look at the page.
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self.complaints.append(text)

    def sent(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.url.split("?")[0].endswith(f"/{path}")]


@pytest.fixture
def seen(url: str) -> Iterator[Seen]:
    """Collects requests; at the end nothing may have left the origin, and nothing was complained about."""
    seen = Seen()
    yield seen
    assert {request.url for request in seen.requests if not request.url.startswith((url, "data:"))} == set()
    assert seen.complaints == []


@pytest.fixture
def open_page(browser: Browser, url: str, seen: Seen) -> Iterator[Open]:
    """``open_page("?token=x", locale="ko-KR", routes={"model": handler})`` opens it in a fresh profile."""
    contexts: list[BrowserContext] = []

    def open_one(
        path: str = "",
        routes: dict[str, Callable[[Route], None]] | None = None,
        locale: str = "ko-KR",
        **options: Any,
    ) -> Page:
        context = browser.new_context(locale=locale, **options)
        contexts.append(context)
        seen.watch(context)
        context.set_default_timeout(10_000)
        page = context.new_page()
        for name, handler in (routes or {}).items():
            page.route(f"**/{name}", handler)
        page.goto(url + path)
        return page

    yield open_one
    for context in contexts:
        context.close()


def answering(body: object, status: int = 200, **headers: str) -> Callable[[Route], None]:
    """A handler that answers with JSON, or with ``body`` itself if it is a text."""
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    kind = "text/html" if isinstance(body, str) else "application/json"

    def answer(route: Route) -> None:
        route.fulfill(status=status, body=text, headers={"Content-Type": kind, **headers})

    return answer


def model_of(labels: list[str], **changes: object) -> dict[str, object]:
    """What GET /model says about a model with these labels."""
    limits = {"texts": 64, "characters": 1000, "bytes": 100_000}
    told = {"name": "made-up", "labels": labels, "takes_pairs": False, "max_seq_length": 64, "limits": limits}
    return {**told, "runtime": "torch", "device": "cpu", "version": "0", **changes}


def prediction(probabilities: dict[str, float]) -> dict[str, object]:
    label = max(probabilities, key=lambda name: probabilities[name])
    return {"label": label, "probability": probabilities[label], "probabilities": probabilities}


def classify(page: Page, sentence: str) -> None:
    """Type, press Enter, wait for the answer."""
    page.fill("#text", sentence)
    page.press("#text", "Enter")
    expect(page.locator("#sentence")).to_have_text(sentence)
    expect(page.locator("#result")).to_have_attribute("aria-busy", "false")


def asked(url: str, path: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def recent_sentences(page: Page) -> list[str]:
    return page.locator("#recent .words").all_text_contents()


def focused(page: Page) -> str:
    """The id or else the text of what has the keyboard."""
    return str(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))


# ---- the answer


@needs_chromium
def test_enter_shows_the_label_and_a_bar_for_every_class_as_predict_answers(
    open_page: Open, url: str
) -> None:
    page = open_page()
    classify(page, SENTENCE)
    answer = asked(url, "predict", {"text": SENTENCE})
    labels = asked(url, "model")["labels"]
    assert page.text_content("#label") == answer["label"]
    assert page.text_content("#probability") == f"{answer['probability']:.2%}"
    assert page.locator("#bars .name").count() == len(labels) == 2
    for row, name in zip(page.locator("#bars li").all(), labels, strict=True):
        probability = answer["probabilities"][name]
        predicted = name == answer["label"]
        assert row.locator(".name").text_content() == name + (" (예측)" if predicted else "")
        assert float(row.locator("data").get_attribute("value") or "") == probability
        assert row.locator("data").text_content() == f"{probability:.2%}"
        width = row.locator(".fill").evaluate("bar => bar.style.width")
        assert float(width.removesuffix("%")) == pytest.approx(100 * probability, abs=1e-3)
    assert re.fullmatch(r"응답까지 [\d,]+ms", page.text_content("#time") or "")
    expect(page.locator("#spoken")).to_have_text(f"{answer['label']} {answer['probability']:.2%}")


@needs_chromium
def test_the_model_is_told(open_page: Open, url: str) -> None:
    page = open_page()
    told = asked(url, "model")
    expect(page.locator("#model")).to_have_text(told["name"])
    expect(page).to_have_title(f"문장 분류 · {told['name']}")
    assert page.text_content("#classes") == "클래스 2개: 부정, 긍정"
    assert (
        page.text_content("#machine")
        == f"최대 {told['max_seq_length']}토큰 · torch · cpu · bunryu {told['version']}"
    )
    assert page.is_hidden("#pair")


@needs_chromium
def test_many_classes_scroll_in_the_order_of_their_ids(open_page: Open) -> None:
    labels = [f"분야 {i}" if i % 2 else str(200 - i) for i in range(120)]  # "200" before "2": no number order
    answer = prediction({name: 0.6 if i == 100 else 0.4 / 119 for i, name in enumerate(labels)})
    page = open_page(routes={"model": answering(model_of(labels)), "predict": answering(answer)})
    classify(page, SENTENCE)
    shown = [name.removesuffix(" (예측)") for name in page.locator("#bars .name").all_text_contents()]
    assert shown == labels
    bars = page.locator("#bars")
    assert bars.evaluate("bars => bars.scrollHeight > 3 * bars.clientHeight")
    assert bars.get_attribute("tabindex") == "0"
    top, bottom, row = bars.evaluate(
        "bars => { const box = bars.getBoundingClientRect();"
        " return [box.top, box.bottom, bars.querySelector('.predicted').getBoundingClientRect().top]; }"
    )
    assert top < row < bottom
    assert page.text_content("#classes") == "클래스 120개"


@needs_chromium
def test_a_model_of_pairs_asks_for_two_sentences(open_page: Open, seen: Seen) -> None:
    answer = prediction({"함의": 0.2, "중립": 0.7, "모순": 0.1})
    told = model_of(["함의", "중립", "모순"], takes_pairs=True)
    page = open_page(routes={"model": answering(told), "predict": answering(answer)})
    expect(page.locator("#pair")).to_be_visible()
    page.fill("#text", SENTENCE)
    page.press("#text", "Enter")
    expect(page.get_by_role("alert")).to_have_text("분류할 문장을 입력하세요.")
    assert focused(page) == "pair"
    page.keyboard.type("둘째 문장")
    page.keyboard.press("Enter")
    expect(page.locator("#other-sentence")).to_have_text("둘째 문장")
    assert [request.post_data_json for request in seen.sent("predict")] == [
        {"text": SENTENCE, "pair": "둘째 문장"}
    ]
    assert recent_sentences(page) == [f"{SENTENCE} / 둘째 문장"]
    page.fill("#pair", "")
    page.locator("#recent button").click()
    expect(page.locator("#result")).to_have_attribute("aria-busy", "false")
    assert page.input_value("#pair") == "둘째 문장"
    assert seen.sent("predict")[1].post_data_json == {"text": SENTENCE, "pair": "둘째 문장"}


@needs_chromium
def test_another_model_served_at_the_same_address_is_noticed(open_page: Open) -> None:
    page = open_page()
    expect(page.locator("#model")).not_to_have_text("")
    answer = prediction({"정치": 0.2, "경제": 0.5, "문화": 0.3})
    page.route("**/model", answering(model_of(["정치", "경제", "문화"])))
    page.route("**/predict", answering(answer))
    classify(page, SENTENCE)
    assert page.locator("#bars .name").all_text_contents() == ["정치", "경제 (예측)", "문화"]
    assert page.text_content("#model") == "made-up"


@needs_chromium
def test_an_answer_that_was_overtaken_is_not_shown(open_page: Open) -> None:
    held: list[Route] = []

    def predict(route: Route) -> None:
        if route.request.post_data_json == {"text": SENTENCE}:
            held.append(route)
        else:
            route.continue_()

    page = open_page(routes={"predict": predict})
    with page.expect_request("**/predict"):
        page.fill("#text", SENTENCE)
        page.press("#text", "Enter")
    with page.expect_event("requestfailed") as given_up:
        classify(page, OTHER)
    assert given_up.value.post_data_json == {"text": SENTENCE}
    assert len(held) == 1
    held[0].fulfill(body=json.dumps(prediction({"부정": 0.01, "긍정": 0.99})))
    assert page.text_content("#sentence") == OTHER
    assert recent_sentences(page) == [OTHER]
    assert page.text_content("#failure") == ""


# ---- the keyboard


@needs_chromium
def test_everything_can_be_done_with_the_keyboard(open_page: Open, seen: Seen) -> None:
    page = open_page()
    expect(page.locator("#examples")).to_be_visible()
    assert focused(page) == "text"
    for sentence in (SENTENCE, OTHER):
        page.keyboard.press("Control+a")
        page.keyboard.type(sentence)
        page.keyboard.press("Enter")
        expect(page.locator("#sentence")).to_have_text(sentence)
    stops = []
    for _ in range(4):
        page.keyboard.press("Tab")
        stops.append(focused(page))
    assert stops[0] == "분류"
    assert stops[1].startswith(OTHER)
    assert stops[2].startswith(SENTENCE)
    assert stops[3] == "docs"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#sentence")).to_have_text(SENTENCE)
    assert page.input_value("#text") == SENTENCE
    assert recent_sentences(page) == [SENTENCE, OTHER]
    assert focused(page).startswith(SENTENCE)
    assert len(seen.sent("predict")) == 3


@needs_chromium
def test_shift_enter_is_a_new_line(open_page: Open, seen: Seen) -> None:
    page = open_page()
    page.focus("#text")
    page.keyboard.type("첫 줄")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("둘째 줄")
    assert page.input_value("#text") == "첫 줄\n둘째 줄"
    assert seen.sent("predict") == []
    page.keyboard.press("Enter")
    expect(page.locator("#sentence")).to_have_text("첫 줄\n둘째 줄")
    assert [request.post_data_json for request in seen.sent("predict")] == [{"text": "첫 줄\n둘째 줄"}]


@needs_chromium
def test_enter_that_ends_a_syllable_does_not_send(open_page: Open, seen: Seen) -> None:
    page = open_page()
    page.focus("#text")
    keyboard = page.context.new_cdp_session(page)
    keyboard.send("Input.imeSetComposition", {"text": "한", "selectionStart": 1, "selectionEnd": 1})
    page.keyboard.press("Enter")
    # Safari ends the composition first, and tells by the code alone.
    page.dispatch_event("#text", "keydown", {"key": "Enter", "keyCode": 229})
    keyboard.send("Input.insertText", {"text": "한"})
    page.press("#text", "Home")
    assert seen.sent("predict") == []
    page.fill("#text", "한글")
    page.keyboard.press("Enter")
    expect(page.locator("#sentence")).to_have_text("한글")
    assert len(seen.sent("predict")) == 1


@needs_chromium
def test_an_empty_sentence_is_asked_for(open_page: Open, seen: Seen) -> None:
    page = open_page()
    page.fill("#text", " \n ")
    page.click("#form button")
    expect(page.get_by_role("alert")).to_have_text("분류할 문장을 입력하세요.")
    assert focused(page) == "text"
    assert seen.sent("predict") == []


@needs_chromium
def test_the_counter_counts_characters_against_the_limit(open_page: Open, seen: Seen) -> None:
    page = open_page(routes={"model": answering(model_of(["부정", "긍정"]))})
    page.fill("#text", "가🙂" * 500)
    expect(page.locator("#text-counter")).to_have_text("1,000 / 1,000자")
    assert page.get_attribute("#text", "aria-invalid") == "false"
    page.fill("#text", "가🙂" * 500 + "다")
    assert page.text_content("#text-counter") == "1,001 / 1,000자"
    assert page.get_attribute("#text", "aria-invalid") == "true"
    page.press("#text", "Enter")
    expect(page.get_by_role("alert")).to_have_text("문장이 너무 깁니다. 1,000자까지 보낼 수 있습니다.")
    assert seen.sent("predict") == []


@needs_chromium
def test_the_twenty_most_recent_sentences_are_kept_once_each(open_page: Open) -> None:
    answer = prediction({"부정": 0.1, "긍정": 0.9})
    page = open_page(routes={"predict": answering(answer)})
    for number in [*range(22), 5]:
        classify(page, f"문장 {number}")
    kept = [5, *(number for number in range(21, 1, -1) if number != 5)]
    assert recent_sentences(page) == [f"문장 {number}" for number in kept]
    assert page.locator("#recent .label").all_text_contents() == ["긍정90.00%"] * 20
    page.reload()
    expect(page.locator("#examples")).to_be_visible()
    assert recent_sentences(page) == []


@needs_chromium
def test_examples_of_reviews_are_offered_once(open_page: Open) -> None:
    page = open_page()
    example = page.locator("#examples button").first
    sentence = example.text_content()
    example.click()
    expect(page.locator("#sentence")).to_have_text(str(sentence))
    assert page.is_hidden("#examples")
    other = open_page(routes={"model": answering(model_of(["정치", "경제"]))})
    expect(other.locator("#model")).to_have_text("made-up")
    assert other.is_hidden("#examples")


# ---- text is text


@needs_chromium
def test_a_script_that_is_typed_stays_text(open_page: Open) -> None:
    page = open_page()
    hostile = "<script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
    classify(page, hostile)
    assert page.text_content("#sentence") == hostile
    assert recent_sentences(page) == [hostile]
    assert page.evaluate("window.hacked === undefined")
    assert (page.locator("script").count(), page.locator("img").count()) == (1, 0)


@needs_chromium
def test_what_the_service_says_stays_text(open_page: Open) -> None:
    hostile = "<img src=x onerror=window.hacked=1>"
    answer = prediction({hostile: 0.75, "__proto__": 0.25})
    told = model_of([hostile, "__proto__"], name=hostile, device=hostile)
    page = open_page(routes={"model": answering(told), "predict": answering(answer)})
    classify(page, SENTENCE)
    assert page.text_content("#label") == page.text_content("#model") == hostile
    assert page.locator("#bars .name").all_text_contents() == [f"{hostile} (예측)", "__proto__"]
    page.route("**/predict", answering({"error": {"what": hostile, "where": hostile, "fix": hostile}}, 422))
    page.press("#text", "Enter")
    expect(page.locator("#failure dd").first).to_have_text(hostile)
    assert page.evaluate("window.hacked === undefined")
    assert page.locator("img").count() == 0


# ---- what goes wrong

WORDS = {"error": {"what": "the queue is full", "where": "64 texts wait", "fix": "try again"}}
SAID = list(WORDS["error"].values())
FAILURES = {
    "no connection": (lambda route: route.abort("connectionrefused"), "서비스에 연결할 수 없습니다.", []),
    "500 in our words": (answering(WORDS, 500), "서비스에 문제가 생겼습니다(500).", SAID),
    "a proxy's 502": (answering("<h1>Bad gateway</h1>", 502), "서비스에 문제가 생겼습니다(502).", []),
    "no JSON": (answering("<h1>Sign in</h1>"), "서비스의 답을 이해할 수 없습니다.", []),
    "another JSON": (answering({"label": "긍정"}), "서비스의 답을 이해할 수 없습니다.", []),
    "null": (answering(None), "서비스의 답을 이해할 수 없습니다.", []),
    "busy": (answering(WORDS, 503, **{"Retry-After": "2"}), "서비스가 바쁩니다. 2초 후", SAID),
    "busy, no time told": (answering("", 503), "서비스가 바쁩니다. 잠시 후", []),
    "no token": (answering(WORDS, 401), "토큰이 없거나 맞지 않습니다.", SAID),
    "refused": (answering(WORDS, 413), "서비스가 요청을 받아들이지 않았습니다(413).", SAID),
    "strange error": (answering({"error": {"what": 5, "fix": None}}, 400), "받아들이지 않았습니다(400).", []),
}


@needs_chromium
def test_a_failing_service_shows_a_readable_message(open_page: Open) -> None:
    page = open_page()
    alert = page.get_by_role("alert")
    for failure, (handler, message, words) in FAILURES.items():
        classify(page, OTHER)
        assert alert.text_content() == "", failure
        page.route("**/predict", handler)
        page.fill("#text", SENTENCE)
        page.press("#text", "Enter")
        expect(alert, failure).to_contain_text(message)
        assert page.locator("#failure dd").all_text_contents() == words, failure
        assert page.is_hidden("#result"), failure
        assert page.input_value("#text") == SENTENCE, failure
        assert recent_sentences(page) == [OTHER], failure
        page.unroute("**/predict")


@needs_chromium
def test_a_page_whose_first_question_failed_recovers(open_page: Open) -> None:
    page = open_page(routes={"model": lambda route: route.abort("connectionrefused")})
    expect(page.get_by_role("alert")).to_contain_text("서비스에 연결할 수 없습니다.")
    page.unroute("**/model")
    classify(page, SENTENCE)
    assert page.locator("#bars li").count() == 2
    assert page.text_content("#failure") == ""


# ---- languages, looks, tokens


@needs_chromium
@pytest.mark.parametrize(
    ("locale", "language"), [("ko", "ko"), ("ko-KR", "ko"), ("en-US", "en"), ("de-DE", "en")]
)
def test_the_language_starts_as_the_browsers(locale: str, language: str, open_page: Open) -> None:
    page = open_page(locale=locale)
    assert page.get_attribute("html", "lang") == language
    assert page.text_content("h1") == {"ko": "문장 분류", "en": "Classify a sentence"}[language]


@needs_chromium
def test_the_language_can_be_switched(open_page: Open) -> None:
    page = open_page()
    classify(page, SENTENCE)
    page.get_by_role("button", name="English").click()
    assert page.get_attribute("html", "lang") == "en"
    assert page.text_content("#form button") == "Classify"
    assert re.fullmatch(r"answered in [\d,]+ ms", page.text_content("#time") or "")
    assert page.get_by_role("button", name="English").get_attribute("aria-pressed") == "true"
    assert page.get_by_role("button", name="한국어").get_attribute("aria-pressed") == "false"
    page.route("**/predict", answering(WORDS, 503, **{"Retry-After": "2"}))
    page.press("#text", "Enter")
    expect(page.locator("#failure strong")).to_have_text("The service is busy. Try again in 2 s.")
    page.get_by_role("button", name="한국어").click()
    assert page.get_attribute("html", "lang") == "ko"
    assert page.text_content("#failure strong") == "서비스가 바쁩니다. 2초 후 다시 시도하세요."
    assert page.input_value("#text") == SENTENCE


@needs_chromium
def test_both_languages_say_the_same_things(open_page: Open) -> None:
    page = open_page()
    korean, english = page.evaluate("[Object.keys(WORDS.ko), Object.keys(WORDS.en)]")
    assert korean == english
    used = set(re.findall(r'data-words="(\w+)"', (PAGES / "demo.html").read_text()))
    assert used <= set(korean)


@needs_chromium
def test_dark_where_the_system_is_dark(open_page: Open) -> None:
    brightness = {}
    for scheme in ("light", "dark"):
        page = open_page(color_scheme=scheme)
        colours = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
        )
        brightness[scheme] = [sum(map(int, re.findall(r"\d+", colour))) for colour in colours]
    ground, ink = brightness["light"]
    assert ground > 600 > 200 > ink
    ground, ink = brightness["dark"]
    assert ground < 200 < 600 < ink


@needs_chromium
def test_a_narrow_window_needs_no_sideways_scrolling(open_page: Open) -> None:
    long_name = "아주긴클래스이름" * 12
    told = model_of([long_name, "긍정"], takes_pairs=True)
    answer = prediction({long_name: 0.9, "긍정": 0.1})
    routes = {"model": answering(told), "predict": answering(answer)}
    page = open_page(routes=routes, viewport={"width": 320, "height": 640})
    page.fill("#pair", "x" * 300)
    classify(page, "가" * 300)
    assert page.evaluate("document.documentElement.scrollWidth") == 320


@needs_chromium
def test_the_token_leaves_the_address_and_is_sent_as_a_header(open_page: Open, seen: Seen, url: str) -> None:
    page = open_page("?token=s3cret&keep=1")
    classify(page, SENTENCE)
    assert page.url == f"{url}?keep=1"
    page.reload()
    classify(page, OTHER)
    assert page.evaluate("localStorage.length") == 0
    # who presses Enter before the model is known asks for it once more
    assert (len(seen.sent("predict")), len(seen.sent("model")) >= 2) == (2, True)
    asked_for = [*seen.sent("model"), *seen.sent("predict")]
    assert {request.header_value("authorization") for request in asked_for} == {"Bearer s3cret"}
    elsewhere = open_page()
    classify(elsewhere, SENTENCE)
    assert seen.sent("predict")[-1].header_value("authorization") is None


@needs_chromium
def test_a_service_that_wants_a_token(trained: Run, browser: Browser, tmp_path: Path) -> None:
    with (
        serving(trained, tmp_path, "--token") as (address, process),
        browser.new_context(locale="ko-KR") as context,
    ):
        bare = address.partition("?")[0]
        page = context.new_page()
        page.goto(bare)
        expect(page.get_by_role("alert")).to_contain_text("토큰이 없거나 맞지 않습니다.")
        page.goto(address)
        classify(page, SENTENCE)
        assert page.url == bare
        page.get_by_role("link", name="API 문서").click()
        assert "Authorization: Bearer" in str(page.locator("pre", has_text="$URL/model").text_content())
        assert "Authorization: Bearer" not in str(page.locator("pre", has_text="$URL/health").text_content())
        page.get_by_role("link", name="demo page").click()
        classify(page, OTHER)
        process.terminate()
        assert process.wait(30) == 0
        page.press("#text", "Enter")
        expect(page.get_by_role("alert")).to_contain_text("서비스에 연결할 수 없습니다.")
        assert page.input_value("#text") == OTHER


# ---- the files themselves


@needs_chromium
def test_the_page_forbids_what_it_does_not_need(open_page: Open, seen: Seen, url: str) -> None:
    page = open_page()
    with urllib.request.urlopen(url, timeout=30) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {text: 'window.hacked = 1'}))"
    )
    assert page.evaluate("window.hacked === undefined")
    (complaint,) = seen.complaints
    assert "Content Security Policy" in complaint
    seen.complaints.clear()


@pytest.mark.parametrize(("name", "scripts"), [("demo.html", 1), ("docs.html", 0)])
def test_a_page_is_one_file_that_the_policy_can_name_by_hash(name: str, scripts: int) -> None:
    page = (PAGES / name).read_text()
    assert len(re.findall(r"<script\b", page)) == len(re.findall("<script>", page)) == scripts
    assert len(re.findall(r"<style\b", page)) == len(re.findall("<style>", page)) == 1
    assert re.findall(r"\s(?:style|on\w+)=", re.sub(r"(?s)<script>.*</script>", "", page)) == []
    assert re.findall(r"(?:src|href|url\(|@import|srcset)[=(\s\"']*(?:https?:)?//", page) == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", page) == []


@needs_chromium
def test_the_docs_tell_every_path_with_a_curl_line(open_page: Open, url: str) -> None:
    page = open_page("docs")
    paths = asked(url, "openapi.json")["paths"]
    assert {"/predict", "/health", "/model"} <= set(paths)
    assert page.locator("h2 code").all_text_contents() == [
        path for path, methods in paths.items() for _ in methods
    ]
    lines = page.locator("pre").all_text_contents()
    for path in paths:
        assert [line for line in lines if f'"$URL{path}"' in line] != []
    assert page.locator("script").count() == 0
    page.get_by_role("link", name="demo page").click()
    classify(page, SENTENCE)


@needs_chromium
def test_a_curl_line_of_the_docs_works(open_page: Open, url: str) -> None:
    if not shutil.which("curl"):
        pytest.skip("no curl")
    page = open_page("docs")
    command = page.locator("pre", has_text='"$URL/predict"').first.text_content()
    done = subprocess.run(
        ["bash", "-c", str(command)],
        env={**os.environ, "URL": url.rstrip("/"), "TOKEN": "x"},
        capture_output=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-6)


def test_the_docs_show_text_as_text() -> None:
    hostile = "<script>x</script>'; rm -rf ~; '"
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Text"}}}}
    operation = {
        "summary": hostile,
        "description": hostile,
        "requestBody": body,
        "responses": {"200": {"description": hostile}},
    }
    text = {
        "properties": {hostile: {"type": "string", "description": hostile}},
        "examples": [{"text": hostile}],
    }
    api = {
        "info": {"title": hostile, "version": "1", "description": hostile},
        "paths": {"/predict": {"post": operation}},
        "components": {"schemas": {"Text": text}},
    }
    template = jinja2.Environment(autoescape=True).from_string((PAGES / "docs.html").read_text())
    page = template.render(api=api)
    assert "<script" not in page
    assert r"\u003cscript\u003ex\u003c/script\u003e\u0027; rm -rf ~; \u0027" in page
