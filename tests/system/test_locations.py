"""Where files lie that no run owns."""

from __future__ import annotations

from pathlib import Path

import pytest

from bunryu.system.locations import cache_folder


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder("~/mine") == Path("/home/someone/mine")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_folder(None) == Path("/elsewhere/bunryu")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder(None) == Path("/home/someone/.cache/bunryu")
