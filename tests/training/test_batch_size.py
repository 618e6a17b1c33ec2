"""``batch_size=auto``: what fits is found, recorded, and a step stays as large as it was."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bunryu import cli
from bunryu.errors import ConfigError, OutOfMemory
from bunryu.runs.run import Run
from bunryu.sweeps.job import run_job
from bunryu.sweeps.ledger import Ledger
from bunryu.system import machine
from bunryu.training import batch_size, recipe
from bunryu.training.batch_size import MemoryTrial, memory_errors, settle_batch
from bunryu.training.task import ClassificationTask
from helpers.killing import at_call, die, forked, outcome, resume, run_in
from helpers.killing import train as killed_train
from helpers.together import runs_in, together
from helpers.together import train as command


def config(batch: Any = "auto", accumulated: int = 1, **more: Any) -> dict[str, Any]:
    trainer = {"accumulate_grad_batches": accumulated, "precision": "32-true"}
    accelerator, data = {"name": "cpu", "devices": 1}, {"batch_size": batch}
    nodes = {"trainer": trainer, "accelerator": accelerator, "datamodule": data}
    return {**data, "max_seq_length": 16, **nodes, **more}


def at_most(most: int) -> Callable[[int], bool]:
    return lambda rows: rows <= most


def found(given: dict[str, Any], fits: Callable[[int], bool]) -> tuple[int, int]:
    settled = settle_batch(given, fits)
    assert settled["batch_size"] == settled["datamodule"]["batch_size"]
    return settled["batch_size"], settled["trainer"]["accumulate_grad_batches"]


@pytest.mark.parametrize("spelling", ["auto", 0])
def test_a_step_has_32_rows_whatever_fits(spelling: Any, caplog: pytest.LogCaptureFixture) -> None:
    for most, expected in {1000: (32, 1), 32: (32, 1), 31: (16, 2), 10: (8, 4), 1: (1, 32)}.items():
        assert found(config(spelling), at_most(most)) == expected
    with caplog.at_level("INFO", "bunryu"):
        assert found(config(spelling, accumulated=3), at_most(40)) == (32, 3)
    assert "batch_size=auto: 32 rows, and 3 such batches a step" in caplog.text
    assert found(config(spelling, accumulated=3), at_most(1000)) == (96, 1)


def test_not_one_row_fits_and_a_tpu_is_not_tried() -> None:
    with pytest.raises(OutOfMemory, match="not even one row of 16 tokens fits") as memory:
        settle_batch(config(), at_most(0))
    assert (memory.value.exit_code, memory.value.fix) == (3, "a smaller max_seq_length, or a smaller model")
    with pytest.raises(ConfigError) as tpu:
        settle_batch(config(accelerator={"name": "tpu"}), at_most(1))
    assert (tpu.value.where, tpu.value.fix) == ("batch_size", "batch_size=32")


def test_a_number_stays_and_nothing_is_tried() -> None:
    never: Any = None  # to be called
    given = config(24, accumulated=2)
    assert settle_batch(given, never) == given
    given = config() | {"datamodule": {"batch_size": 24}}
    assert settle_batch(given, never) == config(24)
    assert given["batch_size"] == "auto"


class Model(torch.nn.Module):
    """Keeps of a row two activations of ``length`` times ``width`` numbers, and little else."""

    config = SimpleNamespace(pad_token_id=0)

    def __init__(self, width: int, error: BaseException | None = None, most: int = 0) -> None:
        super().__init__()
        self.embedding, self.head = torch.nn.Embedding(2, width), torch.nn.Linear(width, 2)
        self.error, self.most = error, most
        self.tried: list[tuple[int, int]] = []

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        self.tried.append(tuple(input_ids.shape))  # type: ignore[arg-type]
        assert int(input_ids.min()) > 0
        assert int(attention_mask.min()) == 1
        if self.error is not None and len(input_ids) > self.most:
            raise self.error
        return SimpleNamespace(logits=self.head(self.embedding(input_ids).tanh().tanh().mean(dim=1)))


EXHAUSTED = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"),
    MemoryError(),
]


def trial(model: Model, half: torch.dtype | None = None) -> MemoryTrial:
    return MemoryTrial(model, partial(torch.optim.AdamW, lr=0.1), 16, torch.device("cpu"), half)


@pytest.mark.parametrize("error", EXHAUSTED, ids=lambda error: f"{type(error).__name__} {error}"[:40])
def test_a_card_is_tried_with_two_whole_steps_of_the_longest_rows(error: BaseException) -> None:
    model = Model(4, error, most=10)
    assert found(config(), trial(model)) == (8, 4)
    assert model.tried == [(32, 16), (16, 16), (8, 16), (8, 16)]


def test_a_trial_has_the_run_s_precision_and_leaves_nothing_on_the_card() -> None:
    seen: list[torch.dtype] = []
    model = Model(4)
    model.head.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    assert trial(model, torch.bfloat16)(2)
    assert seen == [torch.bfloat16] * 2
    assert {(weight.grad, weight.device.type) for weight in model.parameters()} == {(None, "cpu")}


def test_another_error_is_not_taken_for_it() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors(config(8)):
        trial(Model(4, RuntimeError("shapes do not match")))(2)


@pytest.mark.parametrize("error", EXHAUSTED, ids=repr)
def test_out_of_memory_in_training_names_what_to_set(error: BaseException) -> None:
    halved = "batch_size=4 trainer.accumulate_grad_batches=4; batch_size=auto, which finds"
    for rows, fix in ((8, halved), (1, "a smaller")):
        what = f"out of memory with batch_size={rows} and max_seq_length=16"
        with pytest.raises(OutOfMemory, match=what) as caught, memory_errors(config(rows, accumulated=2)):
            raise error
        assert caught.value.fix.startswith(fix)


@pytest.mark.parametrize(
    ("kind", "device", "precision", "half"),
    [("gpu", "cuda", "16-mixed", torch.float16), ("mps", "mps", "bf16-mixed", torch.bfloat16)],
)
def test_which_card_is_tried(
    kind: str, device: str, precision: str, half: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(batch_size, "_model", lambda *_: Model(4))
    monkeypatch.setattr(
        batch_size, "MemoryTrial", lambda *known, spare: made.append((*known[2:], spare)) or at_most(16)
    )
    optimizer = {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.1}
    for devices in (1, 2):
        given = config(accelerator={"name": kind, "devices": devices}, optimizer=optimizer)
        given["trainer"]["precision"] = precision
        assert settle_batch(given)["batch_size"] == 16
    gradients = 4 * (2 * 4 + 4 * 2 + 2)  # of which a card sends a copy to the others
    assert made == [(16, torch.device(device), half, spare) for spare in (0, gradients)]


def test_what_a_row_keeps_is_counted() -> None:
    width, length = 64, 50
    kept = batch_size._kept_for_a_row(Model(width), length, None)
    activations = 2 * width * length * 4
    assert activations <= kept <= activations + length * 8 * 2 + width * 4 * 2 + 100


def test_processes_share_the_memory_if_the_system_says_how_much_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Model(4096)
    weights = sum(weight.nbytes for weight in model.parameters())
    row = batch_size._kept_for_a_row(model, 16, None)
    monkeypatch.setattr(batch_size, "CPU_MEMORY_FRACTION", 1.0)
    monkeypatch.setattr(machine, "available_memory", lambda: 4 * weights + 17 * row)
    monkeypatch.setattr(batch_size, "_model", lambda *_: model)
    for devices, rows in ((1, 16), (2, 8)):
        given = config(accelerator={"name": "cpu", "devices": devices})
        assert settle_batch(given)["batch_size"] == rows
    monkeypatch.setattr(machine, "available_memory", lambda: None)
    assert settle_batch(config())["batch_size"] == 32


@pytest.mark.usefixtures("warm")
def test_resume_and_reproduce_take_the_recorded_number(tmp_path: Path) -> None:
    def room_for(rows: int) -> None:
        batch_size._fitting = lambda *_: at_most(rows)

    def killed() -> None:
        room_for(8)
        at_call(ClassificationTask, "training_step", 6, die)()

    assert killed_train(tmp_path / "whole", "batch_size=0", before=partial(room_for, 8)) == 0
    assert killed_train(tmp_path / "killed", "batch_size=auto", before=killed) == -signal.SIGKILL
    assert resume(tmp_path / "killed", before=partial(room_for, 1000)) == 0
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "whole")
    run = Run(run_in(tmp_path / "killed"))
    for recorded in (run.config, run.manifest["config"]):
        assert recorded["batch_size"] == recorded["datamodule"]["batch_size"] == 8
        assert recorded["trainer"]["accumulate_grad_batches"] == 4
    assert "batch_size=auto" in run.manifest["overrides"]
    assert run.manifest["total_steps"] == 6  # of 72 rows, 32 a step, in two epochs

    def reproduce() -> int:
        room_for(1000)
        return cli.run(["reproduce", str(run_in(tmp_path / "whole"))])

    assert forked(tmp_path / "whole", reproduce) == 0


def test_a_job_of_a_sweep_settles_it_too(
    trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_size, "_fitting", lambda *_: at_most(8))
    monkeypatch.setattr(recipe, "execute", lambda run, **_: {"rows": run.config["batch_size"]})
    ledger = Ledger.create(tmp_path / "sweeps" / "s", {"swept": [], "monitor": "min val/loss"})
    data = {**trained.config["datamodule"], "batch_size": "auto"}
    ledger.add({"aaa": ([], {**trained.config, "output_root": str(tmp_path), "datamodule": data})})
    assert run_job(ledger, "aaa") == 0
    assert Run(run_in(tmp_path)).config["batch_size"] == 8


@pytest.mark.usefixtures("warm")
def test_every_process_of_a_run_has_the_first_one_s_number(tmp_path: Path) -> None:
    arguments = command(tmp_path, "batch_size=auto", "accelerator.devices=2", "epochs=1")
    assert together(tmp_path, arguments) == [0, 0], (tmp_path / "0.log").read_text("utf-8")
    (path,) = runs_in(tmp_path)
    assert Run(path).config["batch_size"] == 32
    assert Run(path).manifest["total_steps"] == 2
    assert "batch_size=auto: " not in (tmp_path / "1.log").read_text("utf-8")


def test_what_is_no_batch_size_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for override, said in {
        "datamodule.batch_size=big": "datamodule.batch_size='big' is no number",
        "batch_size=-1": "batch_size=-1 is out of range",
        "batch_size=1.5": "batch_size=1.5 is float",
        "batch_size=true": "batch_size=True is bool",
    }.items():
        assert cli.run(["train", f"output_root={tmp_path / 'out'}", override]) == 2
        assert said in capsys.readouterr().err
