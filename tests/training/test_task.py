"""Steps, schedules and checkpoints of the task."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.optim import AdamW
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR
from transformers import BertConfig, BertForSequenceClassification

from bunryu.metrics import scores
from bunryu.runs.run import Run
from bunryu.training.schedules import Schedule, cosine_warmup, linear_warmup
from bunryu.training.task import ClassificationTask
from helpers.training import NO_DROPOUT, Train, recorded, train_in

CONFIG = BertConfig(
    vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
)


def a_task() -> ClassificationTask:
    task = ClassificationTask(
        BertForSequenceClassification(CONFIG), optimizer=partial(AdamW, lr=0.1, weight_decay=0.01),
        schedule=Schedule("epoch", partial(ExponentialLR, gamma=0.9)), total_steps=20, seed=7, log_every=1,
    )  # fmt: skip
    task.trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    return task


def test_biases_and_layer_norms_do_not_decay() -> None:
    task = a_task()
    optimizer = task.configure_optimizers()["optimizer"]  # type: ignore[index, call-overload]
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    names = {name: decays[id(parameter)] for name, parameter in task.model.named_parameters()}
    assert {name for name, decay in names.items() if decay == 0.0} == {
        name for name in names if name.endswith(".bias") or "LayerNorm" in name
    }
    assert set(names.values()) == {0.0, 0.01}


@pytest.mark.parametrize("schedule", [linear_warmup, cosine_warmup])
def test_a_schedule_may_have_no_warmup_or_nothing_else(schedule: Callable[..., LambdaLR]) -> None:
    optimizer = AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    (rate,) = schedule(optimizer, total_steps=4, warmup=0.0).lr_lambdas
    assert [rate(0), rate(2), rate(4)] == pytest.approx([1.0, 0.5, 0.0])
    (rate,) = schedule(optimizer, total_steps=4, warmup=1.0).lr_lambdas
    assert [rate(0), rate(3)] == [0.25, 1.0]


def test_sums_and_batches_seen_are_in_the_checkpoint() -> None:
    one, other = a_task(), a_task()
    one.steps, one.batches_seen = 4, 5
    one._epoch += torch.tensor([1.0, 2.0, 3.0])
    one._window += torch.tensor([4.0, 5.0, 6.0])
    checkpoint: dict[str, object] = {}
    one.on_save_checkpoint(checkpoint)
    one._epoch.zero_()  # what is saved is a copy
    other.on_load_checkpoint(checkpoint)
    assert (other.steps, other.batches_seen) == (4, 5)
    assert [*other._epoch.tolist(), *other._window.tolist()] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


@pytest.mark.cpus
@pytest.mark.parametrize("seed", range(8))
def test_figures_are_those_of_the_rows_in_their_order_to_the_last_bit(seed: int) -> None:
    random = np.random.Generator(np.random.PCG64(seed))
    logits = random.normal(size=(5000, 2)).astype(np.float32)
    labels = random.integers(0, 2, 5000)
    order = random.permutation(5000)
    task = a_task()
    for rows in np.array_split(order, 40):
        task._outputs.append(tuple(map(torch.from_numpy, (logits[rows], labels[rows], rows))))  # type: ignore[arg-type]
    task.on_test_epoch_end()
    assert task.scored is not None
    assert task.scored.metrics == {f"test/{name}": value for name, value in scores(logits, labels).items()}
    assert (task.scored.logits == logits).all()


EXACT = [*NO_DROPOUT, "model.lr=1e-4"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train_in(tmp_path_factory.mktemp("plain"), *EXACT)


@pytest.mark.cpus
def test_shapes_change_no_figure(plain: Run, train: Train) -> None:
    # 72 rows by 16: the last batch has 8
    shaped = train(*EXACT, "accelerator.widths=3", "accelerator.fixed_rows=true")
    for name in ("train/loss", "train/accuracy", "train/loss_epoch", "val/loss", "val/accuracy"):
        values = recorded(plain, name)
        assert len(values) == (10 if name in ("train/loss", "train/accuracy") else 2)
        assert recorded(shaped, name) == pytest.approx(values, abs=1e-5, rel=0), name
    for split in ("validation", "test"):
        texts = [(run.path / f"predictions/{split}.csv").read_text("utf-8") for run in (plain, shaped)]
        rows, others = ([line.split(",")[:2] for line in text.splitlines()] for text in texts)
        assert rows == others
        assert len(rows) == 73


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
    paths = [run.path / "checkpoints/last.ckpt" for run in (plain, compiled)]
    names, others = (list(torch.load(path, weights_only=True)["state_dict"]) for path in paths)
    assert names == others
