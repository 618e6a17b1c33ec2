"""Opening a run: what a path names, which checkpoint, and every mismatch refused by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from bunryu.errors import ConfigError, ModelError
from bunryu.inference.opening import find_checkpoint, locate, open_predictor
from bunryu.runs.run import Run
from helpers.refusing import edit_json, refused


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Path:
    """A copy of the trained run, to change."""
    copied = tmp_path / "outputs" / trained.path.parent.name / trained.path.name
    shutil.copytree(trained.path, copied)
    return copied


def test_a_run_its_model_and_a_model_alone(run: Path, tmp_path: Path) -> None:
    shown = f"{run.parent.name}/{run.name}"
    for path in (run, run / "model"):
        opened = locate(path)
        assert (opened.model, opened.folder, opened.name) == (run / "model", run, shown)
    alone = Path(shutil.copytree(run / "model", tmp_path / "mine"))
    opened = locate(alone)
    assert (opened.model, opened.run, opened.folder, opened.name) == (alone, None, alone, "mine")
    assert opened.labels == ["부정", "긍정"]


@pytest.mark.cpus
def test_a_moved_run_opens(run: Path, tmp_path: Path) -> None:
    moved = run.rename(tmp_path / "실험 1")
    assert open_predictor(moved, device="cpu").check_parity() <= 1e-6


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    error = refused(ConfigError, locate, tmp_path / "none")
    assert (error.what, error.where) == ("no such directory", str(tmp_path / "none"))
    error = refused(ConfigError, locate, tmp_path)
    assert error.what == "neither a run directory nor a model folder"
    assert error.fix.startswith("a directory that bunryu train made")


@pytest.mark.parametrize("up", [1, 2])
def test_a_folder_of_runs_names_its_newest(run: Path, up: int) -> None:
    older = run.with_name("2001-01-01_00-00-00-ffffff")
    older.mkdir()
    shutil.copy(run / "manifest.json", older)
    assert refused(ConfigError, locate, run.parents[up - 1]).fix == f"its newest run is {run}"


def test_a_run_without_a_model_says_how_it_stands(run: Path) -> None:
    shutil.rmtree(run / "model")
    edit_json(run / "manifest.json", lambda manifest: {**manifest, "status": "failed"})
    assert refused(ModelError, locate, run).what == "the run is failed and has no model yet"


@pytest.mark.parametrize("names", [{"0": "긍정", "1": "부정"}, {"0": "부정"}])
def test_labels_that_are_not_the_runs_are_refused(run: Path, names: dict[str, str]) -> None:
    edit_json(run / "model/config.json", lambda config: {**config, "id2label": names})
    error = refused(ModelError, locate, run / "model")
    assert error.what == f"the model's labels are {list(names.values())}, the run's ['부정', '긍정']"
    assert error.where == str(run / "model/config.json")


def test_checkpoints_by_name_and_path(run: Path, tmp_path: Path) -> None:
    opened, last = locate(run), run / "checkpoints/last.ckpt"
    elsewhere = Path(shutil.copy(last, tmp_path / "kept.ckpt"))
    assert find_checkpoint(opened, "last") == last
    assert find_checkpoint(opened, "last.ckpt") == last
    assert find_checkpoint(opened, str(elsewhere)) == elsewhere
    error = refused(ConfigError, find_checkpoint, opened, "lost")
    assert error.what == "no checkpoint 'lost'"
    assert error.fix == "one of best.ckpt, last.ckpt, previous.ckpt"
    alone = locate(Path(shutil.copytree(run / "model", tmp_path / "alone")))
    assert refused(ConfigError, find_checkpoint, alone, "last").fix == "a path"


def test_last_is_the_last_checkpoint(run: Path) -> None:
    path = run / "checkpoints/last.ckpt"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["state_dict"]["model.classifier.bias"] += 1.0  # last and best may be the same epoch
    torch.save(checkpoint, path)
    last, best = (
        open_predictor(run, checkpoint=name, device="cpu").network.model.classifier.bias  # type: ignore[attr-defined]
        for name in ("last", None)
    )
    assert torch.equal(last, checkpoint["state_dict"]["model.classifier.bias"])
    assert not torch.equal(last, best)


def test_an_export_is_wanted_that_is_not_there_or_with_a_checkpoint(trained: Run) -> None:
    error = refused(ConfigError, open_predictor, trained.path, runtime="onnx")
    assert error.what == "there is no export"
    assert error.fix == f"bunryu export {trained.path} --format onnx"
    error = refused(ConfigError, open_predictor, trained.path, checkpoint="last", runtime="onnx")
    assert (error.what, error.where) == ("an export has weights of its own", "--checkpoint")
