"""Where the config folder and the caches lie."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder(cache_dir: str | None) -> Path:
    """The folder of all caches: the one given, or bunryu's in the XDG cache directory."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "bunryu"


def conf_dir() -> Path:
    """The config folder: inside the package when installed as a wheel, else the checkout's."""
    inside = Path(__file__).parents[1] / "conf"
    return inside if inside.is_dir() else Path(__file__).parents[3] / "conf"
