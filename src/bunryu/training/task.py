"""What training does with a batch: loss, metrics, optimizer and schedule."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import LRSchedulerTypeUnion, OptimizerLRScheduler
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from bunryu.encoding.batching import NO_ROW, Batch, seed_of
from bunryu.errors import TrainingError
from bunryu.metrics import scores
from bunryu.training.forward import Forward
from bunryu.training.schedules import Schedule

log = logging.getLogger(__name__)

SHOWN_ROWS = 64  # of a batch whose loss is not finite


@dataclass(frozen=True)
class Scored:
    """One split scored: metrics by name, and logits of shape (rows, classes) by row of the split."""

    metrics: dict[str, float]
    logits: npt.NDArray[np.float32]
    index: npt.NDArray[np.int64]


class ClassificationTask(pl.LightningModule):
    """A sequence classifier in training.

    The random numbers of each batch are seeded from (seed, batches seen), and checkpoints hold the sums over
    the epoch: a resumed run continues with the bits of one that was never stopped.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        optimizer: Callable[..., Optimizer],  # takes parameter groups
        schedule: Schedule,
        total_steps: int,  # optimizer steps of the whole run
        seed: int,
        log_every: int,  # steps between two records of train/loss, train/accuracy and lr
        compile: bool = False,  # let torch.compile make kernels for each shape of a batch
        autocast: bool = False,  # compute in bfloat16 where torch.autocast does
    ) -> None:
        super().__init__()
        self.model = model
        self._forward = Forward(model, compiled=compile, autocast=autocast)
        self._optimizer, self._schedule = optimizer, schedule
        self.total_steps, self._seed, self._log_every = total_steps, seed, log_every
        self.steps, self.batches_seen = 0, 0
        self._epoch_start, self._rate = 0.0, 0.0
        # loss times rows, hits, rows: since the last record, and since the epoch's start. No buffers: those
        # would have the model's precision, and in 16 bits a large sum no longer grows.
        self._window, self._epoch = torch.zeros(3), torch.zeros(3)
        self._bad = torch.tensor([-1])  # the epoch's first batch whose loss was not finite
        self._number: torch.Tensor | None = None  # the epoch's next batch, counted on the device
        self._outputs: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        self.scored: Scored | None = None

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer, without decay on biases and LayerNorm, and the schedule."""
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        matrices, vectors = ([p for p in trained if (p.ndim > 1) == wanted] for wanted in (True, False))
        optimizer = self._fused_if_possible([{"params": matrices}, {"params": vectors, "weight_decay": 0.0}])
        scheduler = self._schedule.of(optimizer, self.total_steps)
        # Lightning reads the key lr_scheduler and silently drops any other. It would move a schedule that
        # waits for a metric only once the epoch's checkpoint is written.
        interval = self._schedule.interval
        moving: Any = {"scheduler": scheduler, "interval": interval, "reduce_on_plateau": False}
        return {"optimizer": optimizer, "lr_scheduler": moving}

    def lr_scheduler_step(self, scheduler: LRSchedulerTypeUnion, metric: Any | None) -> None:
        if not self._schedule.monitor:
            super().lr_scheduler_step(scheduler, metric)

    def _fused_if_possible(self, groups: list[dict[str, Any]]) -> Optimizer:
        """The optimizer; where it can, one kernel takes the whole step."""
        takes_it = "fused" in inspect.signature(self._optimizer).parameters
        unset = "fused" not in getattr(self._optimizer, "keywords", {})
        here = self.trainer.strategy.root_device.type in ("cpu", "cuda")
        if not (takes_it and unset and here and self.trainer.precision != "16-mixed"):
            return self._optimizer(groups)
        optimizer = self._optimizer(groups, fused=True)
        # A fused step can unscale gradients, and so Lightning would not clip; but only 16-mixed scales them.
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
        return optimizer

    def forward(self, batch: Batch) -> torch.Tensor:
        return self._forward(batch)  # logits of shape (rows, classes)

    def on_train_epoch_start(self) -> None:
        self._epoch_start = time.perf_counter()
        self._number = self.scored = None

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        number = seed_of(self._seed, self.batches_seen, self.global_rank)  # of this batch's dropout
        torch.manual_seed(number)
        if self.device.type == "xla":
            from bunryu.training import tpu

            tpu.seed(number)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        logits = self(batch)
        loss = cross_entropy(logits.float(), batch["labels"])
        with torch.no_grad():
            rows = (batch["index"] != NO_ROW).sum().to(loss.dtype)
            hits = (logits.argmax(dim=1) == batch["labels"]).sum()
            sums = torch.stack([loss.detach() * rows, hits.to(loss.dtype), rows])
            first = torch.isfinite(loss.detach()) | (self._bad.to(loss.device) >= 0)
            if self._number is None:  # XLA may make a constant of a Python number or a 0-d tensor
                self._number = torch.tensor([batch_idx]).to(loss.device)
            self._bad = torch.where(first, self._bad.to(loss.device), self._number)
            self._number = self._number + 1
            self._window = self._window.to(sums.device) + sums
            self._epoch = self._epoch.to(sums.device) + sums
        self.batches_seen += 1
        return loss * batch["weight"] if "weight" in batch else loss

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any | None = None
    ) -> None:
        """Take the step; every ``log_every`` steps, record the means since the last record, and the rate."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.steps += 1
        self._rate = optimizer.param_groups[0]["lr"]
        if self.steps % self._log_every:
            return
        # Not at the batch's end: there a checkpoint is saved before the module's own hook, sums and all.
        self.refuse_unless_finite()
        loss, accuracy = self._means(self._window)
        self._window = torch.zeros(3)  # zeroed in place it would make XLA compile another graph
        self._record({"train/loss": loss, "train/accuracy": accuracy, "lr": self._rate})

    def on_train_epoch_end(self) -> None:
        """Record and log the epoch's means; validation has run before."""
        self.refuse_unless_finite()
        loss, accuracy = self._means(self._epoch)
        self._window, self._epoch = torch.zeros(3), torch.zeros(3)
        self._record({"train/loss_epoch": loss, "train/accuracy_epoch": accuracy, "lr": self._rate})
        if self._schedule.monitor and self.scored:
            plateau: Any = self.lr_schedulers()
            plateau.step(self.scored.metrics[self._schedule.monitor.split()[1]])
        metrics = {"train/loss": loss, **(self.scored.metrics if self.scored else {})}
        log.info("epoch %d/%d  step %d/%d  %s  %.1f s",
                 self.current_epoch + 1, self.trainer.max_epochs, self.steps, self.total_steps,
                 "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()),
                 time.perf_counter() - self._epoch_start)  # fmt: skip

    def refuse_unless_finite(self) -> None:
        """Raise TrainingError if a loss was not finite, with the first such batch; waits for the device."""
        batch = int(self._over_processes(self._bad, "max"))
        if batch < 0:
            return
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        rows = data.rows_of(self.current_epoch, batch) if data is not None else []
        shown = ", ".join(map(str, rows[:SHOWN_ROWS])) + (", …" if rows[SHOWN_ROWS:] else "")
        what = f"the training loss is not finite from batch {batch + 1} of epoch {self.current_epoch + 1} on"
        fix = "a lower optimizer.lr, or trainer.gradient_clip_val=1.0; the last good checkpoint is kept"
        raise TrainingError(what, where=f"step {self.steps}; rows of that batch: {shown}", fix=fix)

    def on_validation_epoch_start(self) -> None:
        """Refuse to score, and to keep as the best, weights that are not finite."""
        if self.trainer.state.fn == "fit":
            self.refuse_unless_finite()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._outputs.append((self(batch).float(), batch["labels"], batch["index"]))

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        self._score("val")

    def on_test_epoch_end(self) -> None:
        self._score("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["bunryu"] = {
            "steps": self.steps,
            "batches_seen": self.batches_seen,
            "window": self._of_each_process(self._window),
            "epoch": self._of_each_process(self._epoch),
        }

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        state = checkpoint["bunryu"]
        self.steps, self.batches_seen = state["steps"], state["batches_seen"]
        # each process goes on from its own sums: added up in another order, the last bit would differ
        own = self.global_rank
        self._window, self._epoch = (state[name].view(-1, 3)[own] for name in ("window", "epoch"))

    def _score(self, split: str) -> None:
        parts = ([part.cpu() for part in batches] for batches in zip(*self._outputs, strict=True))
        logits, labels, index = (torch.cat(batches).numpy() for batches in parts)
        self._outputs.clear()
        real = index != NO_ROW
        logits, labels, index = logits[real], labels[real], index[real]
        if self._processes > 1:
            logits, labels, index = _of_all_processes(logits, labels, index, processes=self._processes)
        order = np.argsort(index, kind="stable")  # the last bit of a mean depends on the order of its parts
        logits, labels, index = logits[order], labels[order], index[order]
        metrics = {f"{split}/{name}": value for name, value in scores(logits, labels).items()}
        self.scored = Scored(metrics, logits, index)
        if self.trainer.state.fn == "fit":
            self.log_dict(metrics, logger=False)  # for the checkpoint's and early stopping's monitor
            self._record(metrics)

    def _means(self, sums: torch.Tensor) -> tuple[float, float]:
        loss, hits, rows = self._over_processes(sums, "sum").tolist()
        return loss / max(rows, 1.0), hits / max(rows, 1.0)

    @property
    def _processes(self) -> int:
        return self.trainer.world_size if self._trainer is not None else 1

    def _over_processes(self, value: torch.Tensor, how: str) -> torch.Tensor:
        """A copy of the value, reduced over the processes that train together; all of them must call this."""
        if self._processes == 1:
            return value.clone()
        reduced = self.trainer.strategy.reduce(value.clone().to(self.device), reduce_op=how)
        assert isinstance(reduced, torch.Tensor)
        return reduced.cpu()

    def _of_each_process(self, sums: torch.Tensor) -> torch.Tensor:
        """A copy of the sums of each process, in the order of their ranks; all of them must call this."""
        table = torch.zeros(self._processes, *sums.shape)
        table[self.global_rank] = sums
        return self._over_processes(table, "sum")  # with zeros, which leaves every bit

    def _record(self, values: dict[str, float]) -> None:
        for logger in self.loggers:
            logger.log_metrics({**values, "epoch": self.current_epoch}, step=self.steps)


def _of_all_processes(*parts: npt.NDArray[Any], processes: int) -> Iterator[npt.NDArray[Any]]:
    """Arrays of rows joined over all processes; a row that two of them scored stands in them once."""
    gathered: list[Any] = [None] * processes
    torch.distributed.all_gather_object(gathered, parts)
    joined = [np.concatenate(arrays) for arrays in zip(*gathered, strict=True)]
    _, first = np.unique(joined[-1], return_index=True)
    return (array[first] for array in joined)
