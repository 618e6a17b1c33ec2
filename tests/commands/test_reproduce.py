"""``bunryu reproduce``: 0 identical, 5 within the tolerance, 6 different; and what has changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bunryu import cli
from bunryu.commands.reproduce import compare
from bunryu.runs.provenance import git_state
from bunryu.runs.run import Run
from helpers.together import become


def others(run: Run) -> list[Run]:
    return [Run(path) for path in run.path.parent.iterdir() if path != run.path]


@pytest.fixture
def finished(trained: Run, tmp_path: Path) -> Run:
    """A run to change, beside no other."""
    return Run(Path(shutil.copytree(trained.path, tmp_path / "sample-tiny" / trained.path.name)))


@pytest.mark.cpus
def test_a_run_made_again_is_identical(finished: Run, capsys: pytest.CaptureFixture[str]) -> None:
    finished.record(git=git_state())  # the checkout may have been edited since
    assert cli.run(["reproduce", str(finished.path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("different now from when the run was made:\n  nothing\n")
    (again,) = others(finished)
    assert f"identical\n  test/accuracy  {finished.results['test/accuracy']} -> " in said
    assert again.metrics == finished.metrics
    recorded = again.manifest["reproduces"], again.manifest["overrides"]
    assert recorded == (finished.path.name, finished.manifest["overrides"])


def test_changes_are_shown_before_anything_is_trained(
    finished: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = finished.manifest
    versions = manifest["versions"] | {"torch": "1.0"}
    corpus = manifest["corpus"] | {"fingerprint": "b" * 64}
    git = {"commit": "abc", "dirty": True, "diff": "+", "diff_cut": False}
    finished.record(versions=versions, sources="a" * 64, python="3.0", git=git, corpus=corpus)
    assert cli.run(["reproduce", str(finished.path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    for line in ("torch 1.0 -> ", "bunryu's sources aaaaaaaaaaaa -> ", "python 3.0 -> ", "git commit abc -> ",
                 "git diff: ", "corpus fingerprint bbbbbbbbbbbb -> "):  # fmt: skip
        assert f"\n  {line}" in said
    assert others(finished) == []


def test_other_results_are_within_the_tolerance_or_not(trained: Run, finished: Run) -> None:
    assert compare(trained, finished, 1e-3)[0] == 0
    for moved, code, word in ((1e-4, 5, "not identical, but within"), (0.1, 6, "different")):
        finished.write_results(trained.results | {"test/loss": trained.results["test/loss"] + moved})
        found, lines = compare(trained, finished, 1e-3)
        assert (found, lines[0].startswith(word)) == (code, True)


def test_other_metrics_are_shown_where_they_differ_first(trained: Run, finished: Run) -> None:
    metrics = finished.path / "metrics.csv"
    metrics.write_text(metrics.read_text("utf-8").replace("0,1,train/loss,0", "0,1,train/loss,9"), "utf-8")
    code, lines = compare(trained, finished, 10.0)
    assert code == 5
    assert any("metrics.csv    differs first at epoch 0, step 1: train/loss " in line for line in lines)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [("cpu", "gpu", "there is no gpu here"), ("devices: 1", "devices: two", "'two' is no number of devices")],
)
def test_a_run_that_cannot_be_trained_here_leaves_no_other(
    old: str, new: str, said: str, finished: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    path = finished.path / "config.yaml"
    path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")
    assert cli.run(["reproduce", str(finished.path)]) == 2
    key = "accelerator.name: 'cpu' -> 'gpu'" if new == "gpu" else "accelerator.devices: 1 -> 'two'"
    assert f"its config.yaml is not the one it began with:\n  {key}\n" in capsys.readouterr().err
    finished.record(config=finished.config)
    assert cli.run(["reproduce", str(finished.path)]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert f"where: {path}\n  fix:   a machine like the one it was made on" in error
    assert others(finished) == []


def test_one_of_several_processes_and_an_unfinished_run_make_none(
    finished: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = finished.path / "config.yaml"
    path.write_text(path.read_text("utf-8").replace("devices: 1", "devices: 2"), "utf-8")
    finished.record(config=finished.config)
    monkeypatch.setattr("bunryu.training.distributed.execute", None)  # it would wait for the other process
    become({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}, monkeypatch)
    assert cli.run(["reproduce", str(finished.path)]) == 2
    assert "2 processes were started: reproduce starts those of a run itself" in capsys.readouterr().err
    finished.end("interrupted", "SIGTERM")
    assert cli.run(["reproduce", str(finished.path)]) == 2
    assert "the run is interrupted: there is nothing to compare with yet" in capsys.readouterr().err
    assert others(finished) == []
