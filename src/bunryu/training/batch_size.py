"""``batch_size=auto``: the largest batch that the memory holds, accumulated to a step of the usual size."""

from __future__ import annotations

import copy
import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy

from bunryu.config.instantiate import instantiate
from bunryu.config.record import fill_environment
from bunryu.data.corpus import Corpus
from bunryu.errors import ConfigError, OutOfMemory
from bunryu.system import machine
from bunryu.training.inputs import classifier_of, tokenizer_of

log = logging.getLogger(__name__)

AUTO = ("auto", 0)  # the second is the tutorial's spelling
ROWS_PER_STEP = 32  # of an optimizer's step on each device: the batch_size that ships
# Of the machine's free memory: with what a backward pass adds, 1.4 times the sum was measured.
CPU_MEMORY_FRACTION = 0.5
CARD_MEMORY_FRACTION = 0.9  # rows of many lengths leave gaps
WEIGHT_COPIES = 4  # themselves, their gradients, and an optimizer's two moments
# What PyTorch says when memory runs out without an error of its own for it.
OUT_OF_MEMORY = ("DefaultCPUAllocator", "MPS backend out of memory")
HALF = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}


def settle_batch(
    config: Mapping[str, Any], fits: Callable[[int], bool] | None = None, corpus: Corpus | None = None
) -> dict[str, Any]:
    """The config, accelerator settled, with the batch size that ``auto`` comes to on this machine.

    An optimizer's step keeps the rows it has with the shipped batch size: no larger batch is tried, and
    smaller ones are accumulated. ``fits``: whether so many rows fit; None to find out here, with the corpus.
    Raises ConfigError on a TPU, which cannot be tried, and OutOfMemory if not even one row fits.
    """
    settled = copy.deepcopy(dict(config))
    data, trainer = settled["datamodule"], settled["trainer"]
    if data["batch_size"] in AUTO and settled["accelerator"]["name"] == "tpu":
        raise ConfigError("what fits a tpu cannot be tried", where="batch_size", fix="batch_size=32")
    if data["batch_size"] in AUTO:
        wanted = ROWS_PER_STEP * trainer["accumulate_grad_batches"]
        sizes = [rows for rows in range(wanted, 0, -1) if wanted % rows == 0]
        rows = next(filter(fits or _fitting(settled, corpus), sizes), 0)
        if not rows:
            what = f"not even one row of {settled['max_seq_length']} tokens fits into the memory"
            raise OutOfMemory(what, where="batch_size", fix="a smaller max_seq_length, or a smaller model")
        data["batch_size"], trainer["accumulate_grad_batches"] = rows, wanted // rows
        log.info("batch_size=auto: %d rows, and %d such batches a step", rows, wanted // rows)
    settled["batch_size"] = data["batch_size"]
    return settled


def out_of_memory(error: BaseException) -> bool:
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error) for words in OUT_OF_MEMORY)


@contextmanager
def memory_errors(config: Mapping[str, Any]) -> Iterator[None]:
    """Raise OutOfMemory, with what helps, where PyTorch runs out of memory inside."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not out_of_memory(error):
            raise
        rows, accumulated = config["batch_size"], config["trainer"]["accumulate_grad_batches"]
        what = f"out of memory with batch_size={rows} and max_seq_length={config['max_seq_length']}"
        smaller = f"batch_size={rows // 2} trainer.accumulate_grad_batches={2 * accumulated}; "
        smaller += "batch_size=auto, which finds what fits; "
        raise OutOfMemory(what, fix=smaller * (rows > 1) + "a smaller max_seq_length or model") from error


def _fitting(config: Mapping[str, Any], corpus: Corpus | None) -> Callable[[int], bool]:
    """Finds out whether batches of so many rows fit, on the accelerator that the config has."""
    kind, length = config["accelerator"]["name"], int(config["max_seq_length"])
    available = machine.available_memory()  # before there is a model
    model = _model(config, corpus)
    half = HALF.get(str(config["trainer"]["precision"]))
    weights = sum(weight.nbytes for weight in model.parameters())
    processes = int(config["accelerator"]["devices"])
    if kind != "cpu":
        optimizer = instantiate(fill_environment(config["optimizer"], "optimizer"))
        device = torch.device("cuda" if kind == "gpu" else kind)
        return MemoryTrial(model, optimizer, length, device, half, spare=weights if processes > 1 else 0)
    row = _kept_for_a_row(model, length, half)
    copies = WEIGHT_COPIES + (processes > 1)  # gradients on their way to the others
    if available is None:
        return lambda rows: True
    return lambda rows: processes * (copies * weights + rows * row) <= CPU_MEMORY_FRACTION * available


def _model(config: Mapping[str, Any], corpus: Corpus | None) -> Any:
    assert corpus is not None
    config = {name: fill_environment(config[name], name) for name in ("model", "cache_dir", "max_seq_length")}
    return classifier_of(config, *tokenizer_of(config, corpus), corpus).train()


@dataclass(frozen=True)
class MemoryTrial:
    """Trains a model on batches of the longest rows, to see whether they fit a card."""

    model: Any  # moved to the card for each trial
    optimizer: Callable[..., torch.optim.Optimizer]
    length: int  # tokens of a row
    device: torch.device
    half: torch.dtype | None  # the 16-bit type of mixed precision
    spare: int = 0  # bytes that have to be left over: gradients on their way to other cards

    def __call__(self, rows: int) -> bool:
        if self.device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(CARD_MEMORY_FRACTION)
        try:
            self._two_steps(rows)
            return True
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return False
        finally:
            self.model.zero_grad()
            self.model.cpu()  # nothing of it stays on the card, where another process may train
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.set_per_process_memory_fraction(1.0)

    def _two_steps(self, rows: int) -> None:
        """Two, since the optimizer has a state only after the first."""
        self.model.to(self.device)
        optimizer = self.optimizer(self.model.parameters())
        _spare = torch.empty(self.spare, dtype=torch.uint8, device=self.device)
        for _ in range(2):
            _loss(self.model, rows, self.length, self.half).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()


def _kept_for_a_row(model: Any, length: int, half: torch.dtype | None) -> int:
    """Bytes that a forward pass of one row keeps for the backward pass."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = _loss(model, 1, length, half)
    del loss  # until here nothing of it was freed, and no address taken twice
    return sum(kept.values())


def _loss(model: Any, rows: int, length: int, half: torch.dtype | None) -> torch.Tensor:
    """The loss of rows of ``length`` tokens."""
    device = next(model.parameters()).device
    token = 0 if model.config.pad_token_id else 1  # any but the padding
    ids = torch.full((rows, length), token, device=device)
    mixed: AbstractContextManager[Any] = torch.autocast(device.type, half) if half else nullcontext()
    with mixed:
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return cross_entropy(logits.float(), torch.zeros(rows, dtype=torch.long, device=device))
