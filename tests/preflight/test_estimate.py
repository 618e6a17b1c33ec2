"""What a run will take: the arithmetic by hand, and a real small measurement beside the run it speaks of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from bunryu.errors import OutOfMemory
from bunryu.preflight import stopwatch, timing
from bunryu.preflight.estimate import Curve, Measured, estimate, shared_by, together
from bunryu.preflight.stopwatch import Rounds
from bunryu.preflight.timing import measure
from bunryu.runs.run import Run
from bunryu.system import machine

MEASURED = Measured(
    prepare=2.0,
    fit=1.0,
    batch=0.5,
    step=0.25,
    validation=4.0,
    test=8.0,
    epoch=0.125,
    predictions=0.25,
    save=0.75,
    export=1.5,
    batches=10,
    parameters=7,
    checkpoint=1000,
    folder=300,
    files=20,
    memory=5000,
    device_memory=0,
)


@pytest.fixture
def config(trained: Run) -> dict[str, Any]:
    """A plain config to change: two epochs, a record every step."""
    loaded: dict[str, Any] = yaml.safe_load((trained.path / "config.yaml").read_text("utf-8"))
    return loaded


def test_a_curve_takes_medians_is_linear_between_and_goes_on_beyond() -> None:
    curve = Curve.of([(100, 9.0), (100, 1.0), (100, 2.0), (200, 4.0)])
    assert curve == Curve((100, 200), (2.0, 4.0))
    assert curve.at(np.array([50, 100, 150, 200, 300])).tolist() == [2.0, 2.0, 3.0, 4.0, 6.0]


def test_a_curve_of_one_point_goes_on_in_proportion_and_none_falls() -> None:
    assert Curve.of([(100, 2.0)]).at(np.array([100, 150])).tolist() == [2.0, 3.0]
    assert Curve.of([(100, 3.0), (200, 2.0)]).at(np.array([400])).tolist() == [2.0]


def test_the_parts_of_a_run_by_hand(config: dict[str, Any]) -> None:
    found = estimate(config, MEASURED)
    assert found.steps == 20
    assert found.parts == {
        "preparing": 2.0,
        "training": 20 * 0.5 + 20 * 0.25 + 1.0,
        "validation": 2 * (4.0 + 0.125),
        "checkpoints": 0.75 * (2 + 2),  # last and best after each epoch
        "scoring": 2 * (0.125 + 0.75) + 0.25 + 4.0 + 8.0,
        "writing model/": 1.5,
    }
    assert found.seconds == sum(found.parts.values())
    assert found.kept == 3 * 1000 + 300 + 20  # best, last and previous, model/, predictions
    assert found.disk == found.kept + 1000
    assert found.memory == 5000


@pytest.mark.parametrize(("keep", "checkpoints"), [("all", 3), ("best", 1), ("none", 0)])
def test_the_disk_in_the_end_holds_what_keep_checkpoints_leaves(
    config: dict[str, Any], keep: str, checkpoints: int
) -> None:
    found = estimate({**config, "keep_checkpoints": keep}, MEASURED)
    assert found.kept == checkpoints * 1000 + 320
    assert found.disk == 4 * 1000 + 320


@pytest.mark.parametrize(
    ("limits", "steps", "training"),
    [
        ({"accumulate_grad_batches": 4}, 6, 20 * 0.5 + 6 * 0.25),  # in each epoch of 4, 4 and 2 batches
        ({"max_steps": 5}, 5, 5 * 0.75),
        ({"fast_dev_run": True}, 1, 0.75),
        ({"limit_train_batches": 0.5}, 10, 10 * 0.75),
        ({"limit_train_batches": 2}, 4, 4 * 0.75),
    ],
)
def test_limits_make_fewer_steps(
    limits: dict[str, Any], steps: int, training: float, config: dict[str, Any]
) -> None:
    config["trainer"] |= limits
    found = estimate(config, MEASURED)
    assert (found.steps, found.parts["training"]) == (steps, training + 1.0)
    if "max_steps" in limits:
        assert found.parts["validation"] == 4.125


def test_checkpoints_of_every_step_are_counted(config: dict[str, Any]) -> None:
    config["callbacks"]["last_checkpoint"]["every_minutes"] = 0
    assert estimate(config, MEASURED).parts["checkpoints"] == 0.75 * (20 + 2 + 2)
    del config["callbacks"]["last_checkpoint"]
    assert estimate(config, MEASURED).parts["checkpoints"] == 0.75 * 2


def test_without_a_test_split_only_validation_is_scored(config: dict[str, Any]) -> None:
    found = estimate(config, replace(MEASURED, test=0.0))
    assert found.parts["scoring"] == 0.125 + 0.75 + 0.25 + 4.0


def test_jobs_that_differ_in_rate_seed_epochs_and_schedule_share_their_timing(config: dict[str, Any]) -> None:
    other = {**config, "seed": 1, "epochs": 9, "scheduler": {}, "save_top_k": 3}
    other["model"] = {**config["model"], "lr": 0.5}
    other["optimizer"] = {**config["optimizer"], "lr": 0.5}
    other["trainer"] = {**config["trainer"], "max_epochs": 9}
    assert shared_by(other) == shared_by(config)
    for key, value in (("max_seq_length", 9), ("batch_size", 9), ("padding", "max_length")):
        other["datamodule"] = {**config["datamodule"], key: value}
        assert shared_by(other) != shared_by(config)


def test_jobs_begin_as_soon_as_there_is_room() -> None:
    assert together([5.0, 1.0, 1.0, 4.0], 1) == 11.0
    assert together([5.0, 1.0, 1.0, 4.0], 2) == 6.0
    assert together([5.0], 8) == 5.0


def test_rounds_come_smallest_first_and_end_early_where_the_first_takes_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batches = [np.array([0]), np.array([1, 2])]
    assert list(Rounds(batches, len, 0.0)) == [1, 2, 1, 2, 1, 2]  # type: ignore[arg-type, comparison-overlap]
    monkeypatch.setattr(stopwatch, "FIRST_ROUND_SECONDS", -1.0)
    rounds = Rounds(batches, len, 0.0)  # type: ignore[arg-type]
    assert list(rounds) == [1, 1, 1]  # type: ignore[comparison-overlap]
    assert rounds.tried == 1


def test_what_is_measured_is_the_runs_own_size(
    config: dict[str, Any], trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "TRAINING_SECONDS", 0.0)
    monkeypatch.setattr(timing, "EVALUATION_SECONDS", 0.0)
    measured = measure(config, tmp_path / "scratch")
    manifest = trained.manifest
    assert measured.batches == 5  # 72 rows in batches of 16
    assert measured.parameters == manifest["parameters"]
    assert estimate(config, measured).steps == manifest["total_steps"]
    written = (trained.path / "checkpoints/last.ckpt").stat().st_size
    assert measured.checkpoint == pytest.approx(written, rel=0.01)
    model = sum(path.stat().st_size for path in (trained.path / "model").iterdir())
    assert measured.folder == pytest.approx(model, rel=0.01)
    predictions = sum(path.stat().st_size for path in (trained.path / "predictions").iterdir())
    assert measured.files == pytest.approx(predictions, rel=0.1)
    assert min(measured.batch, measured.step, measured.validation, measured.test, measured.save) > 0
    assert measured.memory > 50 << 20


def test_memory_that_runs_out_while_timing_is_told_as_in_training(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(config: Any, scratch: Path) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:125] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(timing, "_measure", exhausted)
    with pytest.raises(OutOfMemory, match="out of memory with batch_size=16 and") as caught:
        measure(config, tmp_path)
    assert "batch_size=8 trainer.accumulate_grad_batches=2" in str(caught.value.fix)


def test_of_two_processes_one_is_timed_with_its_share_of_the_threads(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "TRAINING_SECONDS", 0.0)
    monkeypatch.setattr(timing, "EVALUATION_SECONDS", 0.0)
    threads: list[int] = []
    build = timing.build

    def watched(*arguments: Any) -> Any:
        threads.append(torch.get_num_threads())
        return build(*arguments)

    monkeypatch.setattr(timing, "build", watched)
    before = torch.get_num_threads()
    config["accelerator"]["devices"] = config["trainer"]["devices"] = 2
    measured = measure(config, tmp_path / "scratch")
    assert measured.batches == 3  # 72 rows in batches of 32
    assert (threads, torch.get_num_threads()) == ([max(1, before // 2)], before)
    assert not torch.distributed.is_initialized()
    assert measured.memory > 2 * 50 << 20


def test_the_process_tells_its_age_and_memory() -> None:
    assert 0 < machine.process_age() < 24 * 3600
    machine.reset_peak_memory()
    before = machine.peak_memory()
    block = np.ones(8 << 20)  # 64 MiB
    assert machine.peak_memory() - before > 60 << 20
    del block
