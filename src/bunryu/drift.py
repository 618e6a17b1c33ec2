"""What is different now from when a run began."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bunryu import provenance

# Packages whose version can change a result.
DECISIVE = ("numpy", "pytorch-lightning", "tokenizers", "torch", "transformers")


def of_code(manifest: Mapping[str, Any]) -> list[str]:
    """Differences of bunryu's sources and of the libraries that decide a result, a line each."""
    versions = provenance.versions()
    found = [
        f"{name} {manifest['versions'].get(name)} -> {versions[name]}"
        for name in DECISIVE
        if manifest["versions"].get(name) != versions[name]
    ]
    if manifest["sources"] != provenance.sources_hash():
        found.append(f"bunryu's sources {manifest['sources'][:12]} -> {provenance.sources_hash()[:12]}")
    return found


def of_surroundings(manifest: Mapping[str, Any]) -> list[str]:
    """Differences of Python, system, processor and checkout, a line each: they may change a result."""
    now = {
        "python": provenance.python(),
        "platform": provenance.system(),
        "processor": provenance.processor(),
    }
    found = [
        f"{name} {manifest.get(name)} -> {value}"
        for name, value in now.items()
        if manifest.get(name) != value
    ]
    git_before, git_now = manifest.get("git") or {}, provenance.git_state() or {}
    if git_before.get("commit") != git_now.get("commit"):
        found.append(f"git commit {git_before.get('commit')} -> {git_now.get('commit')}")
    if git_before.get("diff") != git_now.get("diff"):
        found.append(
            "git diff: the checkout's uncommitted changes are others (the run's stand in its manifest)"
        )
    return found


def of_config(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Differences of two configs, a dotted key a line."""
    old, new = dict(_leaves(before)), dict(_leaves(now))
    return [
        f"{key}: {old.get(key, 'absent')!r} -> {new.get(key, 'absent')!r}"
        for key in sorted(old.keys() | new.keys())
        if (key in old, old.get(key)) != (key in new, new.get(key))
    ]


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node
