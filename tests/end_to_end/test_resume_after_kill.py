"""Whatever stops a run, it goes on to the result it would have had."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from bunryu import cli
from bunryu.config.record import resolved
from bunryu.encoding.encoder import Encoder
from bunryu.errors import BusyError, ModelError
from bunryu.inference.opening import locate
from bunryu.models import weights as weights_
from bunryu.runs import provenance
from bunryu.runs.lock import locked
from bunryu.runs.run import Run
from bunryu.system import signals
from bunryu.system.signals import SIGNALS, Interrupted, StopRequest, stop_on_signals
from bunryu.training import checkpoints
from bunryu.training.build import build
from bunryu.training.callbacks import BestCheckpoint
from bunryu.training.recipe import execute
from bunryu.training.task import ClassificationTask
from helpers.killing import BATCHES, SMALL, at_call, console, die, outcome, resume, run_in, train
from helpers.refusing import refused

pytestmark = pytest.mark.usefixtures("warm")

CONFIGS = {
    "default": [],
    "warm-up, accumulation": [
        "scheduler=linear_warmup", "trainer.accumulate_grad_batches=2", "trainer.log_every_n_steps=2",
    ],
    "cosine, random, workers": ["scheduler=cosine_warmup", "batching=random", "datamodule.num_workers=2"],
    "plateau": ["scheduler=plateau", "monitor=max val/accuracy", "epochs=4"],
}  # fmt: skip
Whole = Callable[..., Path]


@pytest.fixture(scope="module")
def whole(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """``whole("epochs=6", …)`` is a folder with a run of that config that nothing has stopped."""

    @cache
    def trained(*overrides: str) -> Path:
        folder = tmp_path_factory.mktemp("whole")
        assert train(folder, *overrides) == 0, console(folder)
        return folder

    return trained


@pytest.fixture(scope="module")
def killed(warm: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    assert train(folder, before=killed_at(8)) == -signal.SIGKILL
    return folder


@pytest.fixture
def stopped(killed: Path, tmp_path: Path) -> Path:
    """A folder with a run that was killed in its second epoch."""
    return Path(shutil.copytree(killed, tmp_path / "stopped"))


def killed_at(batch: int) -> Any:
    return at_call(ClassificationTask, "training_step", batch, die)


def goes_on(folder: Path, expected: Path) -> None:
    assert resume(folder) == 0, console(folder)
    assert outcome(folder) == outcome(expected)


# Within an accumulated step, and from an epoch's end; every one: make test-faults
@pytest.mark.cpus
@pytest.mark.parametrize(("name", "batch"), [*zip(list(CONFIGS)[1:], [4, 6, 11], strict=True)])
def test_killed_in_training_a_run_goes_on_to_the_same_bits(
    name: str, batch: int, whole: Whole, tmp_path: Path
) -> None:
    overrides = CONFIGS[name]
    assert train(tmp_path, *overrides, before=killed_at(batch)) == -signal.SIGKILL
    assert Run(run_in(tmp_path)).manifest["status"] == "running"
    goes_on(tmp_path, whole(*overrides))


@pytest.mark.cpus
def test_stopped_before_training_killed_twice_moved_and_without_its_cache(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = at_call(Encoder, "encode", 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert train(tmp_path / "a", before=stop) == 143
    assert Run(run_in(tmp_path / "a")).manifest["status"] == "interrupted"
    assert resume(tmp_path / "a", before=killed_at(4)) == -signal.SIGKILL
    shutil.move(tmp_path / "a", tmp_path / "b")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert resume(tmp_path / "b", before=killed_at(4)) == -signal.SIGKILL
    goes_on(tmp_path / "b", whole())
    assert len(Run(run_in(tmp_path / "b")).manifest["resumed"]) == 3


def test_a_run_goes_on_with_as_many_threads_as_it_began_with(stopped: Path) -> None:
    Run(run_in(stopped)).record(threads=2)
    assert resume(stopped, before=killed_at(1)) == -signal.SIGKILL
    assert " steps on cpu, 2 threads" in console(stopped)
    assert Run(run_in(stopped)).manifest["threads"] == 2


def test_of_a_killed_run_the_best_checkpoint_is_used_and_that_it_is_unfinished_is_said(
    stopped: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_in(stopped)
    assert cli.run(["evaluate", str(run), "--split", "validation"]) == 0
    report = json.loads((run / "evaluations/validation/evaluation.json").read_text("utf-8"))
    (loss,) = (value for _, _, name, value in Run(run).metrics if name == "val/loss")
    assert report["loss"] == loss
    (run.parent / "in.jsonl").write_text('{"document": "재미있다"}', "utf-8")
    assert cli.run(["predict", str(run), str(run.parent / "in.jsonl")]) == 0
    said = f"sample-tiny/{run.name} (UNFINISHED: running in epoch 2 of 2): its best checkpoint so far"
    assert caplog.text.count(said) == 2
    assert "UNFINISHED" in (run / "evaluations/validation/evaluation.html").read_text("utf-8")
    checkpoints.remove_checkpoint(run / "checkpoints/best.ckpt")
    assert refused(ModelError, locate, run).what == "the run is running and has no model yet"


def test_stopped_early_a_run_stays_stopped(whole: Whole, tmp_path: Path) -> None:
    overrides = ["callbacks=early_stopping", "callbacks.early_stopping.patience=1", "epochs=6",
                 "optimizer.lr=0.1"]  # fmt: skip
    expected = whole(*overrides)
    losses = [value for _, _, name, value in Run(run_in(expected)).metrics if name == "val/loss"]
    assert len(losses) < 6
    assert losses[-1] > min(losses)  # rows beyond the best checkpoint's stay when that is scored
    trap = at_call(ClassificationTask, "test_step", 1, die)
    assert train(tmp_path, *overrides, before=trap) == -signal.SIGKILL
    goes_on(tmp_path, expected)


@pytest.mark.parametrize(
    "trap",
    [
        at_call(ClassificationTask, "validation_step", 4, die),
        at_call(checkpoints, "_write_checksums", 7, die),
        at_call(os, "replace", 22, die),  # any file's, checkpoints' among them
        pytest.param(at_call(os, "replace", 27, die), marks=pytest.mark.full),
        pytest.param(at_call(torch, "save", 2, die), marks=pytest.mark.full),
    ],
)
def test_killed_in_validation_or_while_a_checkpoint_is_written(
    trap: Callable[[], None], whole: Whole, tmp_path: Path
) -> None:
    assert train(tmp_path, before=trap) == -signal.SIGKILL
    goes_on(tmp_path, whole())
    assert "damaged" not in console(tmp_path)


def test_half_a_file_and_another_file_system_for_temporary_files(whole: Whole, tmp_path: Path) -> None:
    def half(checkpoint: Any, file: Any) -> None:
        file.write(b"half")
        file.flush()
        die()

    def set_trap() -> None:
        os.environ["TMPDIR"] = "/dev/shm"
        original, calls = torch.save, iter(range(100))
        torch.save = lambda c, f: half(c, f) if next(calls) == 6 else original(c, f)  # type: ignore[assignment]

    assert train(tmp_path, before=set_trap) == -signal.SIGKILL
    folder = run_in(tmp_path) / "checkpoints"
    assert checkpoints.newest_checkpoint(folder) == folder / "last.ckpt"
    goes_on(tmp_path, whole())
    assert not list(run_in(tmp_path).rglob(".*-new"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damaged", [["last.ckpt"], ["last.ckpt", "previous.ckpt"]])
def test_damaged_checkpoints_are_set_aside_with_a_warning(
    damaged: list[str], whole: Whole, stopped: Path
) -> None:
    folder = run_in(stopped) / "checkpoints"
    for name in damaged:
        flip(folder / name)
    goes_on(stopped, whole())
    said = console(stopped)
    for name in damaged:
        assert f"{name} is damaged (its checksum does not fit): set aside as {name}.damaged" in said
        assert (folder / f"{name}.damaged").is_file()
    assert ("training begins anew" in said) == (len(damaged) == 2)


SELDOM = "checkpoint_every_minutes=60"


@pytest.mark.parametrize(
    ("number", "code", "batch", "override"),
    [
        (signal.SIGTERM, 143, 4, SELDOM),
        (signal.SIGINT, 130, 5, "~callbacks.last_checkpoint"),  # at an epoch's end
        pytest.param(signal.SIGUSR1, 143, 1, SELDOM, marks=pytest.mark.full),
    ],
)
def test_a_signal_stops_with_a_checkpoint_and_says_how_to_go_on(
    number: signal.Signals, code: int, batch: int, override: str, whole: Whole, tmp_path: Path
) -> None:
    trap = at_call(ClassificationTask, "training_step", batch, lambda: os.kill(os.getpid(), number))
    assert train(tmp_path, override, before=trap) == code, console(tmp_path)
    run = run_in(tmp_path)
    assert Run(run).manifest["status"] == "interrupted"
    assert Run(run).manifest["exit_reason"] == number.name
    assert checkpoints.steps_of(run / "checkpoints/last.ckpt") == batch
    assert f"bunryu resume {run}" in console(tmp_path)
    assert "Traceback" not in console(tmp_path)
    goes_on(tmp_path, whole())


def test_the_second_signal_does_not_wait_for_the_batch(tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    assert train(tmp_path, before=at_call(ClassificationTask, "training_step", 4, twice)) == 130
    assert Run(run_in(tmp_path)).manifest["exit_reason"] == "SIGINT"
    assert checkpoints.steps_of(run_in(tmp_path) / "checkpoints/last.ckpt") == 3


def test_a_signal_after_the_last_batch_is_not_forgotten(whole: Whole, tmp_path: Path) -> None:
    trap = at_call(BestCheckpoint, "on_fit_end", 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert train(tmp_path, before=trap) == 143
    assert Run(run_in(tmp_path)).manifest["status"] == "interrupted"
    assert not (run_in(tmp_path) / "results.json").exists()
    goes_on(tmp_path, whole())


def test_four_signals_stop_and_are_given_back() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    codes = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143, signal.SIGUSR2: 143}
    for number, code in codes.items():
        with stop_on_signals(), pytest.raises(Interrupted, match=number.name) as stopped:
            signal.raise_signal(number)
        assert stopped.value.exit_code == code
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_signal_to_a_whole_group_is_one_to_each_of_its_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # as systemd sends it: to the command, which passes it on, and to each process that it has started
    monkeypatch.setenv("WORLD_SIZE", "2")
    with stop_on_signals() as stop:
        with pytest.raises(Interrupted), stop.deferred():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            passed = stop.received
        assert passed
    monkeypatch.setattr(signals, "SECONDS_OF_DUPLICATES", 0.0)
    with stop_on_signals() as stop, pytest.raises(Interrupted), stop.deferred():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("somebody asked twice")


def test_no_row_of_metrics_and_no_step_of_tensorboard_is_lost_or_stands_twice(
    whole: Whole, tmp_path: Path
) -> None:
    assert train(tmp_path, SELDOM, before=killed_at(8)) == -signal.SIGKILL
    written = (run_in(tmp_path) / "metrics.csv").read_text("utf-8")
    assert written.splitlines()[-1].startswith("1,7,")  # two steps beyond the checkpoint of the first epoch
    goes_on(tmp_path, whole())
    assert events(tmp_path) == events(whole())


def test_metrics_that_a_checkpoint_counts_are_on_the_disk_and_their_loss_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.create(tmp_path, "a-b", {"seed": 7}, [], [])
    run.log_metrics(0, 1, {"train/loss": 0.5})
    synchronised = []
    monkeypatch.setattr(os, "fsync", lambda file: synchronised.append(os.fstat(file).st_ino))
    size = run.metrics_bytes()
    assert synchronised == [(run.path / "metrics.csv").stat().st_ino]
    monkeypatch.undo()
    os.truncate(run.path / "metrics.csv", size - 1)
    error = refused(ModelError, run.cut_metrics, size)
    assert (error.what, error.where) == (
        f"metrics.csv has lost rows: {size - 1} bytes of {size}", str(run.path),
    )  # fmt: skip


def events(folder: Path) -> list[tuple[str, int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(run_in(folder) / "tensorboard"))
    accumulator.Reload()
    return [
        (tag, event.step, event.value)
        for tag in sorted(accumulator.Tags()["scalars"])
        if tag.startswith(("train/", "lr"))
        for event in accumulator.Scalars(tag)
    ]


def test_changed_code_versions_and_config_are_refused_and_may_be_overruled(stopped: Path) -> None:
    def another() -> None:
        provenance.sources_hash = lambda: "another"  # type: ignore[assignment]

    run = Run(run_in(stopped))
    run.record(versions={**run.manifest["versions"], "torch": "1.0"})
    config = run.path / "config.yaml"
    config.write_text(config.read_text("utf-8").replace("epochs: 2", "epochs: 3"), "utf-8")
    assert resume(stopped, before=another) == 2
    said = console(stopped)
    assert "bunryu's sources " in said and " -> another" in said
    assert f"torch 1.0 -> {provenance.versions()['torch']}" in said
    assert "epochs: 2 -> 3" in said
    assert resume(stopped, "--despite-changes", before=another) == 0


def test_another_corpus_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "t.csv"
    lines = [f"{word} {n},{label}\n" for n in range(30) for word, label in (("좋다", 1), ("싫다", 0))]
    data.write_text("text,label\n" + "".join(lines), "utf-8")
    overrides = [
        "corpus=table",
        f"corpus.train={data}",
        "corpus.validation=0.25",
        "model.vocabulary_size=100",
    ]
    assert train(tmp_path, *overrides, before=killed_at(2)) == -signal.SIGKILL
    data.write_text("text,label\n" + "".join([lines[0].replace(",1", ",0"), *lines[1:]]), "utf-8")
    assert resume(tmp_path) == 2
    assert "the corpus is not the one the run began with (train " in console(tmp_path)
    data.write_text("text,label\n" + "".join(lines[2:]), "utf-8")  # another vocabulary is learnt from it
    assert resume(tmp_path, "--despite-changes") == 1
    assert "the checkpoint does not fit the model: " in console(tmp_path)


def test_a_finished_run_is_left_alone(whole: Whole) -> None:
    folder = whole()
    before = {path: path.stat().st_mtime_ns for path in run_in(folder).rglob("*")}
    assert resume(folder) == 0
    assert f"already finished: {run_in(folder)}" in console(folder)
    assert {path: path.stat().st_mtime_ns for path in run_in(folder).rglob("*")} == before


def test_a_second_process_is_refused_naming_the_first(stopped: Path) -> None:
    with locked(run_in(stopped)):
        assert resume(stopped) == 4
    assert f"the run is held by process {os.getpid()} on " in console(stopped)
    assert Run(run_in(stopped)).manifest["status"] == "running"


def test_a_run_that_was_finished_meanwhile_is_not_opened_again(stopped: Path) -> None:
    metrics = run_in(stopped) / "metrics.csv"
    before = metrics.read_bytes()
    Run(run_in(stopped)).end("finished")
    error = refused(BusyError, execute, Run(run_in(stopped)), resume=True)
    assert "has just finished this run" in str(error)
    assert Run(run_in(stopped)).manifest["status"] == "finished"
    assert metrics.read_bytes() == before


def test_a_failed_run_goes_on_where_the_file_system_cannot_lock(stopped: Path) -> None:
    Run(run_in(stopped)).end("failed")

    def cannot() -> None:
        def lockf(*_: object) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        fcntl.lockf = lockf  # type: ignore[assignment]

    assert resume(stopped, before=cannot) == 0
    assert f"the file system of {run_in(stopped)} cannot lock (No locks available)" in console(stopped)


def poison() -> None:
    """Make the third batch's logits no numbers."""
    original, calls = ClassificationTask.forward, iter(range(1, 1000))

    def forward(self: Any, batch: Any) -> Any:
        logits = original(self, batch)
        return logits * float("nan") if next(calls) == 3 else logits

    ClassificationTask.forward = forward  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("every", "step", "overrides"),
    [(4, 4, []), (100, 5, []), (100, 5, ["+trainer.check_val_every_n_epoch=2"])],
    ids=["at a record", "before validation", "without validation"],
)
def test_nothing_is_recorded_or_kept_of_what_is_not_finite(
    every: int, step: int, overrides: list[str], tmp_path: Path
) -> None:
    assert train(tmp_path, SELDOM, f"trainer.log_every_n_steps={every}", *overrides, before=poison) == 1
    said = console(tmp_path)
    assert "the training loss is not finite from batch 3 of epoch 1 on" in said
    assert f"where: step {step}; rows of that batch: " in said
    run = run_in(tmp_path)
    assert (run / "metrics.csv").read_text("utf-8") == "epoch,step,name,value\n"
    assert list((run / "checkpoints").glob("*")) == []


def test_a_loss_that_is_not_finite_names_step_and_rows_and_keeps_the_last_good_checkpoint(
    tmp_path: Path,
) -> None:
    assert train(tmp_path, "trainer.log_every_n_steps=4", before=poison) == 1
    run = Run(run_in(tmp_path))
    assert run.manifest["status"] == "failed"
    data = build(resolved(run.config, str(run.path)), run, StopRequest()).datamodule
    rows = ", ".join(map(str, data.rows_of(0, 2)))
    assert f"rows of that batch: {rows}\n" in console(tmp_path)
    assert run.metrics == []
    assert checkpoints.steps_of(run.path / "checkpoints/last.ckpt") == 2
    weights = weights_.read_weights(run.path / "checkpoints/last.ckpt")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())
    assert not (run.path / "checkpoints/best.ckpt").exists()


def test_out_of_memory_has_an_exit_code_of_its_own(tmp_path: Path) -> None:
    def greedy() -> None:
        def step(*_: object) -> torch.Tensor:
            return torch.empty(10**15)

        ClassificationTask.training_step = step  # type: ignore[method-assign, assignment]

    assert train(tmp_path, before=greedy) == 3
    assert "out of memory with batch_size=16 and max_seq_length=128" in console(tmp_path)
    assert Run(run_in(tmp_path)).manifest["status"] == "failed"


def test_a_run_that_is_to_keep_no_checkpoint_names_none(tmp_path: Path) -> None:
    assert train(tmp_path, "keep_checkpoints=none", "epochs=1") == 0
    assert list((run_in(tmp_path) / "checkpoints").iterdir()) == []
    assert Run(run_in(tmp_path)).results["best_checkpoint"] is None


# The long sweep of make test-faults: every batch, and real processes.
BUNRYU = Path(sys.executable).with_name("bunryu")
POINTS = [("default", batch) for batch in range(1, BATCHES + 1)]
POINTS += [(name, batch) for name in list(CONFIGS)[1:] for batch in (2, 4, 6, 7, 9, 10)]
POINTS += [(name, batch) for name in ("top 2", "constant, sgd") for batch in (3, 6, 10)]
MORE = {
    "top 2": ["save_top_k=2", "monitor=max val/accuracy"],
    "constant, sgd": ["scheduler=constant", "optimizer=sgd", "trainer.gradient_clip_val=null"],
}


@pytest.mark.full
@pytest.mark.parametrize(("name", "batch"), POINTS)
def test_killed_at_every_batch(name: str, batch: int, whole: Whole, tmp_path: Path) -> None:
    overrides = {**CONFIGS, **MORE}[name]
    trap = at_call(ClassificationTask, "training_step", batch, die)
    assert train(tmp_path, *overrides, before=trap) == -signal.SIGKILL
    goes_on(tmp_path, whole(*overrides))


@pytest.mark.full
@pytest.mark.parametrize("rows", range(1, 31, 3))
def test_real_processes_killed_from_outside(rows: int, whole: Whole, tmp_path: Path) -> None:
    command = [BUNRYU, "train", *SMALL, f"output_root={tmp_path}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            found = list(tmp_path.glob("*/*/metrics.csv"))
            if found and found[0].read_text("utf-8").count("\n") > rows:
                break
            time.sleep(0.002)
        process.kill()
    done = subprocess.run(
        [BUNRYU, "resume", run_in(tmp_path)], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert outcome(tmp_path) == outcome(whole())
