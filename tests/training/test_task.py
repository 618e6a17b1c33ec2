"""Steps, schedules and checkpoints of the task, and the callbacks around it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR
from transformers import BertConfig, BertForSequenceClassification

from bunryu.metrics import scores
from bunryu.runs.run import Run
from bunryu.training.callbacks import BestCheckpoint, EarlyStop
from bunryu.training.schedules import Schedule, cosine_warmup, linear_warmup
from bunryu.training.task import ClassificationTask
from helpers.training import Train, train_in

CONFIG = BertConfig(
    vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
)


def a_task(schedule: Schedule) -> ClassificationTask:
    task = ClassificationTask(
        BertForSequenceClassification(CONFIG), optimizer=partial(AdamW, lr=0.1, weight_decay=0.01),
        schedule=schedule, total_steps=20, seed=7, log_every=1,
    )  # fmt: skip
    task.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    return task


def test_biases_and_layer_norms_do_not_decay() -> None:
    task = a_task(Schedule("epoch", partial(ExponentialLR, gamma=0.9)))
    optimizer = task.configure_optimizers()["optimizer"]  # type: ignore[index, call-overload]
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    names = {name: decays[id(parameter)] for name, parameter in task.model.named_parameters()}
    assert {name for name, decay in names.items() if decay == 0.0} == {
        name for name in names if name.endswith(".bias") or "LayerNorm" in name
    }
    assert set(names.values()) == {0.0, 0.01}


def test_the_schedule_goes_under_the_key_that_lightning_reads() -> None:
    configured = a_task(Schedule("epoch", partial(ExponentialLR, gamma=0.9))).configure_optimizers()
    assert set(configured) == {"optimizer", "lr_scheduler"}  # type: ignore[arg-type]
    assert configured["lr_scheduler"]["interval"] == "epoch"  # type: ignore[index, call-overload]


def test_a_schedule_that_takes_total_steps_is_given_them() -> None:
    configured = a_task(Schedule("step", partial(OneCycleLR, max_lr=0.1))).configure_optimizers()
    assert configured["lr_scheduler"]["scheduler"].total_steps == 20  # type: ignore[index, call-overload]


@pytest.mark.parametrize("schedule", [linear_warmup, cosine_warmup])
def test_warmup_peaks_at_the_full_rate_and_ends_near_zero(schedule) -> None:  # type: ignore[no-untyped-def]
    optimizer = AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = schedule(optimizer, total_steps=100, warmup=0.1)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert max(rates) == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0, abs=1e-12)


def test_no_warmup_starts_at_the_full_rate() -> None:
    optimizer = AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    linear_warmup(optimizer, total_steps=4, warmup=0.0)
    assert optimizer.param_groups[0]["lr"] == 1.0


def test_sums_and_batches_seen_ride_in_the_checkpoint() -> None:
    one, other = (a_task(Schedule("epoch", partial(ExponentialLR, gamma=0.9))) for _ in range(2))
    one.steps, one.batches_seen = 4, 5
    one._epoch += torch.tensor([1.0, 2.0, 3.0])
    one._window += torch.tensor([4.0, 5.0, 6.0])
    checkpoint: dict[str, object] = {}
    one.on_save_checkpoint(checkpoint)
    one._epoch.zero_()  # what is saved is a copy
    other.on_load_checkpoint(checkpoint)
    assert (other.steps, other.batches_seen) == (4, 5)
    assert other._epoch.tolist() == [1.0, 2.0, 3.0]
    assert other._window.tolist() == [4.0, 5.0, 6.0]


def test_checkpoint_callbacks_forget_where_the_run_lay(tmp_path: Path) -> None:
    before = BestCheckpoint("min val/loss", 2)
    before.dirpath = str(tmp_path / "old/checkpoints")
    before.best_model_path = str(tmp_path / "old/checkpoints/best-epoch=1-step=2.ckpt")
    before.best_k_models = {before.best_model_path: torch.tensor(0.5)}
    state = before.state_dict()
    assert str(tmp_path) not in str(state)
    after = BestCheckpoint("min val/loss", 2)
    after.dirpath = str(tmp_path / "new/checkpoints")
    after.load_state_dict(state)
    assert after.best_model_path == str(tmp_path / "new/checkpoints/best-epoch=1-step=2.ckpt")
    assert after.best_k_models == {after.best_model_path: torch.tensor(0.5)}
    assert after.last_model_path == ""


def test_the_monitor_is_a_mode_and_a_metric() -> None:
    best, stop = BestCheckpoint("max val/accuracy", 1), EarlyStop("max val/accuracy", 3, 0.0)
    assert (best.monitor, best.mode) == (stop.monitor, stop.mode) == ("val/accuracy", "max")


@pytest.mark.cpus
@pytest.mark.parametrize("seed", range(8))
def test_figures_are_those_of_the_rows_in_their_order_to_the_last_bit(seed: int) -> None:
    random = np.random.Generator(np.random.PCG64(seed))
    logits = random.normal(size=(5000, 2)).astype(np.float32)
    labels = random.integers(0, 2, 5000)
    order = random.permutation(5000)
    task = a_task(Schedule("epoch", partial(ExponentialLR, gamma=0.9)))
    for rows in np.array_split(order, 40):
        task._outputs.append(tuple(map(torch.from_numpy, (logits[rows], labels[rows], rows))))  # type: ignore[arg-type]
    task.on_test_epoch_end()
    assert task.scored is not None
    assert task.scored.metrics == {f"test/{name}": value for name, value in scores(logits, labels).items()}
    assert (task.scored.logits == logits).all()


SHAPES = ["accelerator.widths=3", "accelerator.fixed_rows=true"]
EXACT = [
    "model.architecture.hidden_dropout_prob=0.0",
    "model.architecture.attention_probs_dropout_prob=0.0",
    "model.lr=1e-4",
]


def recorded(run: Run, name: str) -> list[float]:
    return [value for _, _, key, value in run.metrics if key == name]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train_in(tmp_path_factory.mktemp("plain"), *EXACT)


@pytest.mark.cpus
def test_shapes_change_no_figure(plain: Run, train: Train) -> None:
    shaped = train(*EXACT, *SHAPES)  # 72 rows by 16: the last batch has 8
    for name in ("train/loss", "train/accuracy", "train/loss_epoch", "val/loss", "val/accuracy"):
        values = recorded(plain, name)
        assert len(values) == (10 if name in ("train/loss", "train/accuracy") else 2)
        assert recorded(shaped, name) == pytest.approx(values, abs=1e-5, rel=0), name
    for split in ("validation", "test"):
        tables = [
            (run.path / f"predictions/{split}.csv").read_text("utf-8").splitlines() for run in (plain, shaped)
        ]
        assert [row.split(",")[:2] for row in tables[0]] == [row.split(",")[:2] for row in tables[1]]
        assert len(tables[0]) == 73


def test_what_is_compiled_has_few_shapes_and_the_same_figures(
    plain: Run, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[int, ...]] = []

    def stub(function, **options):  # type: ignore[no-untyped-def]
        assert options == {"dynamic": False}

        def watched(**inputs: torch.Tensor) -> torch.Tensor:
            called.append(tuple(inputs["input_ids"].shape))
            return function(**inputs)  # type: ignore[no-any-return]

        return watched

    monkeypatch.setattr(torch, "compile", stub)
    compiled = train(*EXACT, "compile=true")
    assert set(called) <= {(16, width) for width in (16, 32, 64, 128)}
    assert len(called) == 2 * 5 + 2 * 5 + 5 + 5  # training and validation, and both splits at the end
    assert "batches of 16 rows in 4 widths at most" in (compiled.path / "train.log").read_text("utf-8")
    assert recorded(compiled, "train/loss") == pytest.approx(recorded(plain, "train/loss"), abs=1e-5, rel=0)
    states = [
        torch.load(run.path / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in (plain, compiled)
    ]
    assert list(states[0]) == list(states[1])
    assert {name.split(".")[0] for name in states[1]} == {"model"}
    assert (compiled.path / "model/model.safetensors").is_file()
