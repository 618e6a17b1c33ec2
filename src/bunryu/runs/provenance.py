"""What produced a run, and what of that is different now; gathered without torch."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bunryu.keys import leaves
from bunryu.system import machine

# Packages whose version can change a result.
DECISIVE = ("numpy", "pytorch-lightning", "tokenizers", "torch", "transformers")

PACKAGES = (
    *("bunryu", "hydra-core", "korpora", "numpy", "omegaconf", "pytorch-lightning"),
    *("safetensors", "tensorboard", "tokenizers", "torch", "transformers"),
)
PACKAGE = Path(__file__).parents[1]  # all of bunryu, whatever this file's own folder
LONGEST_DIFF = 1_000_000  # characters


def facts() -> dict[str, Any]:
    """Python, system and processor, package versions, a hash of bunryu's sources, the git state."""
    return {**surroundings(), "versions": versions(), "sources": sources_hash(), "git": git_state()}


def surroundings() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": machine.processor(),
    }


def versions() -> dict[str, str | None]:
    """The installed version of each package that matters; None for one that is not there."""
    return {name: _version(name) for name in PACKAGES}


def sources_hash() -> str:
    """A hash of every installed Python file of bunryu, names included."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(str(path.relative_to(PACKAGE)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def git_state() -> dict[str, Any] | None:
    """Commit and uncommitted diff of the checkout bunryu runs from, or of the working directory's.

    None where neither lies in a git checkout.
    """
    for folder in (PACKAGE, Path.cwd()):
        commit = _git(folder, "rev-parse", "HEAD")
        if commit is not None:
            diff = _git(folder, "diff", "--no-ext-diff", "--no-textconv", "HEAD") or ""
            facts = {"commit": commit.strip(), "dirty": bool(diff), "diff": diff[:LONGEST_DIFF]}
            return {**facts, "diff_cut": len(diff) > LONGEST_DIFF}
    return None


def code_changes(manifest: Mapping[str, Any]) -> list[str]:
    """Differences of bunryu's sources and of the libraries that decide a result, a line each."""
    before, sources = manifest["versions"], sources_hash()
    pairs = [(name, before.get(name), _version(name)) for name in DECISIVE]
    found = [f"{name} {old} -> {new}" for name, old, new in pairs if old != new]
    if manifest["sources"] != sources:
        found.append(f"bunryu's sources {manifest['sources'][:12]} -> {sources[:12]}")
    return found


def surroundings_changes(manifest: Mapping[str, Any]) -> list[str]:
    """Differences of Python, system, processor and checkout, a line each: they may change a result."""
    pairs = [(name, manifest.get(name), value) for name, value in surroundings().items()]
    found = [f"{name} {old} -> {new}" for name, old, new in pairs if old != new]
    before, now = manifest.get("git") or {}, git_state() or {}
    if before.get("commit") != now.get("commit"):
        found.append(f"git commit {before.get('commit')} -> {now.get('commit')}")
    if before.get("diff") != now.get("diff"):
        what = "the checkout's uncommitted changes are others (the run's stand in its manifest)"
        found.append(f"git diff: {what}")
    return found


def config_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Differences of two configs, a dotted key a line."""
    old, new = dict(leaves(before)), dict(leaves(now))
    return [
        f"{key}: {old.get(key, 'absent')!r} -> {new.get(key, 'absent')!r}"
        for key in sorted(old.keys() | new.keys())
        if (key in old, old.get(key)) != (key in new, new.get(key))
    ]


def _git(folder: Path, *arguments: str) -> str | None:
    # a checkout's own settings start no diff, converter or monitor
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
