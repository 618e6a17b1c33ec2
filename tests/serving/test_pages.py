"""The pages as files, what is filled into them, and the policy that a browser gets with them."""

from __future__ import annotations

import re

import pytest

from bunryu.serving.pages import TEMPLATES, docs_page, security_headers


@pytest.mark.parametrize(("name", "scripts"), [("demo.html", 1), ("docs.html", 0)])
def test_a_page_is_one_file_that_the_policy_can_name_by_hash(name: str, scripts: int) -> None:
    page = (TEMPLATES / name).read_text("utf-8")
    assert len(re.findall(r"<script\b", page)) == len(re.findall("<script>", page)) == scripts
    assert len(re.findall(r"<style\b", page)) == len(re.findall("<style>", page)) == 1
    assert re.findall(r"\s(?:style|on\w+)=", re.sub(r"(?s)<script>.*</script>", "", page)) == []
    assert re.findall(r"(?:src|href|url\(|@import|srcset)[=(\s\"']*(?:https?:)?//", page) == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", page) == []


def test_the_policy_allows_the_inline_blocks_and_nothing_else() -> None:
    pages = ["<script>1</script>", "<p>", "<script>2</script>"]
    headers = dict(security_headers(pages, ["*.tunnel.example"]))
    policy = dict(part.split(" ", 1) for part in headers[b"content-security-policy"].decode().split("; "))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'sha256-a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s=' "
        "'sha256-1HNeOiZeFu7gP1lxi5tdAwGcB9i2xR+Q2jpmbuwTqzU='",
        "style-src": "'none'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'self' http://localhost:* http://127.0.0.1:* https://*.tunnel.example",
    }
    assert list(headers.values())[1:] == [b"nosniff", b"no-referrer", b"same-origin", b"no-store"]


def test_the_docs_show_text_as_text() -> None:
    hostile = "<script>x</script>'; rm -rf ~; '"
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Text"}}}}
    shown = {"summary": hostile, "description": hostile}
    operation = {**shown, "requestBody": body, "responses": {"200": shown}}
    text = {"properties": {hostile: {"type": "string", **shown}}, "examples": [{"text": hostile}]}
    info = {"title": hostile, "version": "1", **shown}
    components = {"schemas": {"Text": text}}
    page = docs_page({"info": info, "paths": {"/predict": {"post": operation}}, "components": components})
    assert "<script" not in page
    assert r"\u003cscript\u003ex\u003c/script\u003e\u0027; rm -rf ~; \u0027" in page
