"""What a run will take: the arithmetic by hand, and a real small measurement beside the run it speaks of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml

from bunryu.errors import OutOfMemory
from bunryu.preflight import stopwatch, timing
from bunryu.preflight.estimate import Measured, estimate, shared_by
from bunryu.preflight.stopwatch import SampledBatches
from bunryu.preflight.timing import measure
from bunryu.runs.run import Run
from bunryu.system import machine

MEASURED = Measured(
    prepare=2.0, fit=1.0, epoch=5.0, validation=4.0, test=8.0, save=0.75, write=1.5, batches=10, parameters=7,
    checkpoint=1000, folder=300, files=20, memory=5000, device_memory=0,
)  # fmt: skip


@pytest.fixture
def config(trained: Run, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A plain config to change: two epochs, a record every step; what is timed is timed for one round."""
    monkeypatch.setattr(timing, "TRAINING_SECONDS", 0.0)
    monkeypatch.setattr(timing, "EVALUATION_SECONDS", 0.0)
    loaded: dict[str, Any] = yaml.safe_load((trained.path / "config.yaml").read_text("utf-8"))
    return loaded


def test_the_parts_of_a_run_by_hand(config: dict[str, Any]) -> None:
    found = estimate(config, MEASURED)
    assert found.steps == 20
    assert found.parts == {
        "start-up": 0.0,
        "preparing": 2.0,
        "training": 2 * 5.0 + 1.0,
        "validation": 2 * 4.0,
        "checkpoints": 0.75 * (2 + 2),  # last and best after each epoch
        "scoring": 2 * 0.75 + 4.0 + 8.0,
        "writing model/": 1.5,
    }
    assert found.seconds == sum(found.parts.values())
    assert found.memory == 5000
    for keep, checkpoints in (("all", 3), ("best", 1), ("none", 0)):  # of best, last and previous
        found = estimate({**config, "keep_checkpoints": keep}, MEASURED)
        assert found.kept == checkpoints * 1000 + 320  # model/ and predictions
        assert found.disk == 4 * 1000 + 320
    assert estimate(config, MEASURED, restart=9.0).seconds == found.seconds + 9.0
    # without a test split only validation is scored
    assert estimate(config, replace(MEASURED, test=0.0)).parts["scoring"] == 0.75 + 4.0
    config["callbacks"]["last_checkpoint"]["every_minutes"] = 0  # one a step
    assert estimate(config, MEASURED).parts["checkpoints"] == 0.75 * (20 + 2 + 2)
    del config["callbacks"]["last_checkpoint"]
    assert estimate(config, MEASURED).parts["checkpoints"] == 0.75 * 2


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"accumulate_grad_batches": 4}, (6, 10.0, 8.0)),  # in each epoch of 4, 4 and 2 batches
        ({"max_steps": 5}, (5, 2.5, 4.0)),
        ({"fast_dev_run": True}, (1, 0.5, 0.0)),
        ({"limit_train_batches": 0.5, "limit_val_batches": 0.25}, (10, 5.0, 2.0)),
        ({"limit_train_batches": 2, "limit_val_batches": 3}, (4, 2.0, 0.0)),
    ],
)
def test_limits_make_fewer_steps(limits: Any, expected: Any, config: dict[str, Any]) -> None:
    config["trainer"] |= limits
    found = estimate(config, MEASURED)
    assert (found.steps, found.parts["training"] - 1.0, found.parts["validation"]) == expected


def test_jobs_that_differ_in_rate_seed_epochs_and_schedule_share_their_timing(config: dict[str, Any]) -> None:
    other = {**config, "seed": 1, "epochs": 9, "scheduler": {}, "save_top_k": 3}
    other["model"] = {**config["model"], "lr": 0.5}
    other["optimizer"] = {**config["optimizer"], "lr": 0.5}
    other["trainer"] = {**config["trainer"], "max_epochs": 9}
    assert shared_by(other) == shared_by(config)
    for key, value in (("max_seq_length", 9), ("batch_size", 9), ("padding", "max_length")):
        other["datamodule"] = {**config["datamodule"], key: value}
        assert shared_by(other) != shared_by(config)


def test_the_largest_batch_comes_first_then_a_sample_in_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr(stopwatch, "now", lambda: float(next(clock)))  # a second passes at each look
    data = SimpleNamespace(  # a row is a token, a batch how many it has
        padded_tokens=lambda split, batches: [*map(len, batches)], collator=lambda split: len
    )
    batches = [np.zeros(rows, int) for rows in (9, 1, 2, 3, 4, 5, 6, 7, 8, 10)]

    def taken(seconds: float) -> tuple[SampledBatches, list[Any]]:
        sampled = SampledBatches(data, None, batches, seconds)  # type: ignore[arg-type]
        return sampled, list(sampled)

    sampled, sizes = taken(1.0)
    assert sizes == [10, 2, 4, 6, 8, 10, 10, *(2 * [2, 4, 6, 8, 10])]
    assert (sampled.tokens, sampled.token, sampled.steady) == (55, 2 / 60, 110 * 2 / 60)
    monkeypatch.setattr(stopwatch, "WARM_UP_SECONDS", 1.0)  # over after two sizes
    assert taken(0.0)[1] == [10, 2, 4, 4, 2, 4]


def test_what_is_measured_is_the_runs_own_size(config: dict[str, Any], trained: Run, tmp_path: Path) -> None:
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
    assert min(measured.epoch, measured.validation, measured.test, measured.save, measured.write) > 0
    assert measured.memory > 50 << 20


def test_exhausted_memory_is_refused(config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exhausted = Mock(side_effect=RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    monkeypatch.setattr(timing, "_measure", exhausted)
    with pytest.raises(OutOfMemory, match="out of memory with batch_size=16 and") as caught:
        measure(config, tmp_path)
    assert "batch_size=8 trainer.accumulate_grad_batches=2" in str(caught.value.fix)


def test_of_two_processes_one_is_timed_with_its_share_of_the_threads(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    build = timing.build
    monkeypatch.setattr(
        timing, "build", lambda *given: threads.append(torch.get_num_threads()) or build(*given)
    )
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
