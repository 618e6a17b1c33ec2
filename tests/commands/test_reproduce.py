"""``bunryu reproduce``: 0 identical, 5 within the tolerance, 6 different; and what has changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bunryu import cli
from bunryu.commands.reproduce import compare
from bunryu.runs.provenance import git_state
from bunryu.runs.run import Run
from helpers.training import Train


def others(run: Run) -> list[Run]:
    return [Run(path) for path in run.path.parent.iterdir() if path != run.path]


@pytest.fixture
def finished(trained: Run, tmp_path: Path) -> Run:
    """A run to change, beside no other."""
    return Run(Path(shutil.copytree(trained.path, tmp_path / "sample-tiny" / trained.path.name)))


@pytest.mark.cpus
def test_a_run_made_again_is_identical(finished: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished
    run.record(git=git_state())  # the checkout may have been edited since
    assert cli.run(["reproduce", str(run.path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("different now from when the run was made:\n  nothing\n")
    (again,) = others(run)
    assert f"identical\n  test/accuracy  {run.results['test/accuracy']} -> " in said
    assert (again.path / "metrics.csv").read_bytes() == (run.path / "metrics.csv").read_bytes()
    assert again.manifest["reproduces"] == run.path.name
    assert again.manifest["overrides"] == run.manifest["overrides"]


def test_changes_are_shown_before_anything_is_trained(
    finished: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run, manifest = finished, finished.manifest
    run.record(
        versions={**manifest["versions"], "torch": "1.0"},
        sources="a" * 64,
        python="3.0",
        git={"commit": "abc", "dirty": True, "diff": "+", "diff_cut": False},
        corpus={**manifest["corpus"], "fingerprint": "b" * 64},
    )
    assert cli.run(["reproduce", str(run.path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    for line in ("torch 1.0 -> ", "bunryu's sources aaaaaaaaaaaa -> ", "python 3.0 -> ", "git commit abc -> ",
                 "git diff: ", "corpus fingerprint bbbbbbbbbbbb -> "):  # fmt: skip
        assert f"\n  {line}" in said
    assert others(run) == []


@pytest.mark.parametrize(
    ("moved", "code", "word"), [(1e-4, 5, "not identical, but within"), (0.1, 6, "different")]
)
def test_other_results_are_within_the_tolerance_or_not(
    moved: float, code: int, word: str, trained: Run, finished: Run
) -> None:
    run, again = trained, finished
    assert compare(run, again, 1e-3)[0] == 0
    again.write_results({**again.results, "test/loss": again.results["test/loss"] + moved})
    found, lines = compare(run, again, 1e-3)
    assert (found, lines[0].startswith(word)) == (code, True)


def test_another_seed_is_shown_where_it_differs_first(trained: Run, train: Train) -> None:
    run, again = trained, train("seed=8")
    code, lines = compare(run, again, 10.0)
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
    error = capsys.readouterr().err
    assert said in error
    assert f"where: {path}\n  fix:   a machine like the one it was made on" in error
    assert others(finished) == []


def test_one_of_several_processes_makes_no_run_again(
    finished: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = finished.path / "config.yaml"
    path.write_text(path.read_text("utf-8").replace("devices: 1", "devices: 2"), "utf-8")
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert cli.run(["reproduce", str(finished.path)]) == 2
    assert "2 processes were started: reproduce starts those of a run itself" in capsys.readouterr().err
    assert others(finished) == []


def test_an_unfinished_run_is_refused(finished: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished
    run.end("interrupted", "SIGTERM")
    assert cli.run(["reproduce", str(run.path)]) == 2
    assert f"the run is interrupted: there is nothing to compare with yet\n  where: {run.path}" in (
        capsys.readouterr().err
    )
    assert cli.run(["reproduce", str(Path(run.path) / "model")]) == 2
