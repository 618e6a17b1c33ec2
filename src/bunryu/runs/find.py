"""The run that a path names."""

from __future__ import annotations

from pathlib import Path

from bunryu.errors import ConfigError
from bunryu.runs.run import Run


def find_run(path: Path) -> Run:
    """The run in a directory; ConfigError if it is none, ModelError if its manifest cannot be used."""
    path = path.expanduser()
    if not (path / "manifest.json").is_file():
        what = "not a run directory" if path.exists() else "no such directory"
        raise ConfigError(what, where=str(path), fix=newest_run_hint(path))
    run = Run(path)
    run.manifest  # noqa: B018  refused if it cannot be used
    return run


def newest_run_hint(path: Path) -> str:
    """Names the newest run below a folder of runs, such as outputs/."""
    runs = [manifest.parent for depth in ("*", "*/*") for manifest in path.glob(f"{depth}/manifest.json")]
    if not runs:
        return "a directory that bunryu train made, such as outputs/<corpus>-<model>/<time>-<random>"
    return f"its newest run is {max(runs, key=lambda run: run.name)}"
