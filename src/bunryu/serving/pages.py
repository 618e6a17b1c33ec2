"""The service's pages, and the headers that let a browser run what they hold and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

TEMPLATES = Path(__file__).parent / "templates"


def docs_page(api: Mapping[str, Any], language: str = "en") -> str:
    """The page that documents an OpenAPI description, in English or Korean (``ko``)."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}  # readable examples in Korean
    korean = json.loads((TEMPLATES / "docs.ko.json").read_text("utf-8")) if language == "ko" else {}
    page = environment.get_template("docs.html")
    return page.render(
        api=api, language=language, up="../" if korean else "./", said=lambda text: korean.get(text, text)
    )


def security_headers(pages: Iterable[str], hosts: Sequence[str]) -> list[tuple[bytes, bytes]]:
    """The headers of every answer: a browser may run the inline blocks of these pages, which are HTML.

    Pages of these hosts may show ours in a frame, as a notebook on this machine does from another port.
    """
    html = "\n".join(pages)
    frames = ["'self'", "http://localhost:*", "http://127.0.0.1:*", *(f"https://{host}" for host in hosts)]
    policy = [
        "default-src 'none'",
        f"script-src {_hashes('script', html)}",
        f"style-src {_hashes('style', html)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        f"frame-ancestors {' '.join(frames)}",
    ]
    return [
        (b"content-security-policy", "; ".join(policy).encode("ascii")),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"cache-control", b"no-store"),
    ]


def _hashes(tag: str, html: str) -> str:
    """The hash of every inline block of a tag, as sources of a policy."""
    blocks = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", html, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks]
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
