"""Run directories as training leaves them, but without training, for the tests of reports."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from bunryu.reports.comparison import Comparison, compare
from bunryu.reports.entries import collect
from bunryu.reports.findings import Findings, find
from bunryu.runs.run import SCHEMA

# what a recorded config has at least
RECORDED: dict[str, Any] = {
    "seed": 1, "max_seq_length": 8, "limit_rows": None, "cache_dir": None, "monitor": "min val/loss",
    **{node: {} for node in ("optimizer", "scheduler", "task", "callbacks", "logger")},
    "strict_data": False, "overwrite_cache": False, "keep_checkpoints": "all",
    "model": {"name": "tiny"}, "corpus": {"name": "sample"}, "accelerator": {"name": "cpu", "devices": 1},
    "datamodule": {"batch_size": 16, "padding": "longest"},
    "trainer": {"precision": "32-true", "accelerator": "cpu", "devices": 1, "strategy": "auto",
                "fast_dev_run": False, "log_every_n_steps": 1, "accumulate_grad_batches": 1},
}  # fmt: skip
HOSTILE = "<script>alert(1)</script>"


def made_run(
    root: Path, name: str, loss: float | None, overrides: Sequence[str] = (), *, seed: int = 1,
    status: str = "finished", cause: str | None = None, wrong: Sequence[int] = (), minutes: int = 6,
    corpus_found: dict[str, Any] | None = None, test: float | None = None, **config: Any,
) -> Path:  # fmt: skip
    """Ten predicted test rows of two labels, some wrong; without a loss there are no results, after 0 minutes
    no end; ``test`` is the accuracy there."""
    run = root / "sample-tiny" / name
    (run / "predictions").mkdir(parents=True)
    whole = {"monitor": "min val/loss", "corpus": {"name": "sample"}, "output_root": str(root), **config}
    whole["seed"] = seed
    manifest: dict[str, Any] = {
        "schema": SCHEMA, "status": status, "overrides": [*overrides, f"seed={seed}"], "seed": seed,
        "config": whole, "start": "2026-01-01T10:00:00+09:00",
        "end": f"2026-01-01T10:{minutes:02d}:00+09:00" if minutes else None, "exit_reason": cause,
        "versions": {}, "sources": "", "git": None,
    }  # fmt: skip
    if corpus_found:
        splits = {split: {"rows": 10} for split in ("train", "validation", "test")}
        manifest["corpus"] = {"labels": ["부정", "긍정"], "splits": splits, **corpus_found}
    files = {"manifest.json": json.dumps(manifest), "config.yaml": json.dumps({**RECORDED, **whole})}
    lines = ["epoch,step,name,value", "0,10,train/loss,0.9", "1,20,train/loss,0.5"]
    if loss is not None:
        results = {"val/loss": loss, "val/accuracy": 1 - loss, "best_checkpoint": "checkpoints/best.ckpt"}
        files["results.json"] = json.dumps(results | ({} if test is None else {"test/accuracy": test}))
        lines += [f"0,10,val/loss,{loss + 0.1}", f"1,20,val/loss,{loss}"]
        names = ("긍정", "부정")
        rows = [f"{row},{names[row % 2]},{names[(row + (row in wrong)) % 2]},0.0,0.0\n" for row in range(10)]
        files["predictions/test.csv"] = "".join(["row,label,prediction,logit:부정,logit:긍정\n", *rows])
    files["metrics.csv"] = "\n".join(lines) + "\n"
    for file, content in files.items():
        (run / file).write_text(content, "utf-8")
    return run


def compared(root: Path, metric: str | None = None) -> Comparison:
    return compare(collect([root]), metric)


def findings_of(root: Path, metric: str | None = None) -> Findings:
    return find(compared(root, metric))


def lr_runs(root: Path, losses: dict[float, Sequence[float]]) -> None:
    """Runs of one learning rate after the other, seeds from 1, each kept elsewhere."""
    for lr, some in losses.items():
        for seed, loss in enumerate(some, 1):
            made_run(
                root, f"run-{lr}-{seed}", loss, [f"optimizer.lr={lr}"], seed=seed,
                wrong=range(int(10 * loss)), optimizer={"lr": lr}, cache_dir=str(seed), logger={str(seed): 1},
            )  # fmt: skip


def hostile_sweep(root: Path) -> None:
    """A grid of two keys of which one has markup for values, and a failure that says markup."""
    for index, (title, lr) in enumerate(product((HOSTILE, "한글 & co|x_y"), (0.1, 0.2))):
        for seed in (1, 2, 3):
            made_run(
                root, f"run-{index}-{seed}", 0.3 + 0.1 * index + 0.01 * seed, [f"title={title}", f"lr={lr}"],
                seed=seed, wrong=range(index), title=title, lr=lr,
            )  # fmt: skip
    made_run(root, "failed", None, seed=9, status="failed", cause=f"{HOSTILE}\nof 훈련", title="x", lr=0.1)
