"""The service's pages, and the policy that lets a browser run what they hold and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

PAGES = Path(__file__).parent / "templates"

# Who may show the page in a frame: a notebook on this machine, which has another port.
FRAMES = ("'self'", "http://localhost:*", "http://127.0.0.1:*")


def demo_page() -> str:
    """The page with the demo."""
    return (PAGES / "demo.html").read_text("utf-8")


def docs_page(api: Mapping[str, Any]) -> str:
    """The page that documents an OpenAPI description."""
    environment = Environment(loader=FileSystemLoader(PAGES), autoescape=True)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}  # examples in Korean, to be read
    return environment.get_template("docs.html").render(api=api)


def content_security_policy(pages: Iterable[str], hosts: Sequence[str]) -> str:
    """A policy that allows the pages' own inline script and style blocks, and requests to this service.

    Args:
        pages: as HTML.
        hosts: names whose pages may show ours in a frame, besides ``FRAMES``.
    """
    whole = "\n".join(pages)
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hashes('script', whole)}",
            f"style-src {_hashes('style', whole)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            " ".join(["frame-ancestors", *FRAMES, *(f"https://{host}" for host in hosts)]),
        ]
    )


def _hashes(tag: str, html: str) -> str:
    """The sources that a policy allows: the hash of every inline block of a tag."""
    blocks = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", html, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks]
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
