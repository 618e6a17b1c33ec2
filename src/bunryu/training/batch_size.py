"""``batch_size=auto``: the largest batch that the memory holds, accumulated to a step of the usual size."""

from __future__ import annotations

import copy
import gc
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy

from bunryu.config.instantiate import call, instantiate
from bunryu.config.record import fill_environment
from bunryu.errors import ConfigError, OutOfMemory
from bunryu.system.locations import cache_folder
from bunryu.system.machine import available_memory

log = logging.getLogger(__name__)

AUTO = ("auto", 0)  # the second is the tutorial's spelling
STEP = 32  # rows of an optimizer's step on each device: the batch_size that ships
SHARE = 0.5  # of the machine's free memory: with what a backward pass adds, 1.4 times the sum was measured
CARD_SHARE = 0.9  # of a card's: rows of many lengths leave gaps
COPIES = 4  # of the weights: themselves, their gradients, and an optimizer's two moments
# What PyTorch says when memory runs out without an error of its own for it.
EXHAUSTED = ("DefaultCPUAllocator", "MPS backend out of memory")
HALF = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}

Fits = Callable[[int], bool]  # whether batches of so many rows fit


def settle_batch(config: Mapping[str, Any], fits: Fits | None = None) -> dict[str, Any]:
    """The config with the batch size that ``auto`` comes to on this machine.

    A step stays what it would be with the shipped batch size: a larger batch is not tried, and of smaller
    ones so many are accumulated.

    Args:
        config: plain values, its targets checked, its accelerator settled.
        fits: how to find out; None to try it on this machine.

    Raises:
        ConfigError: on a TPU, which is not asked.
        OutOfMemory: if not even one row fits.
    """
    settled = copy.deepcopy(dict(config))
    data, trainer = settled["datamodule"], settled["trainer"]
    if data["batch_size"] in AUTO and settled["accelerator"]["name"] == "tpu":
        raise ConfigError("what fits a tpu cannot be tried", where="batch_size", fix="batch_size=32")
    if data["batch_size"] in AUTO:
        wanted = STEP * trainer["accumulate_grad_batches"]
        fits = fits or _fitting(settled)
        sizes = [rows for rows in range(wanted, 0, -1) if wanted % rows == 0]
        rows = next(filter(fits, sizes), 0)
        if not rows:
            raise OutOfMemory(
                f"not even one row of {settled['max_seq_length']} tokens fits into the memory",
                where="batch_size",
                fix="a smaller max_seq_length, or a smaller model",
            )
        data["batch_size"], trainer["accumulate_grad_batches"] = rows, wanted // rows
        log.info("batch_size=auto: %d rows, and %d such batches a step", rows, wanted // rows)
    settled["batch_size"] = data["batch_size"]
    return settled


def out_of_memory(error: BaseException) -> bool:
    """Whether that is what an error means."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(words in str(error) for words in EXHAUSTED)


@contextmanager
def memory_errors(config: Mapping[str, Any]) -> Iterator[None]:
    """Name what helps where memory runs out inside.

    Raises:
        OutOfMemory: in place of what PyTorch says.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not out_of_memory(error):
            raise
        rows, accumulated = config["batch_size"], config["trainer"]["accumulate_grad_batches"]
        smaller = f"batch_size={rows // 2} trainer.accumulate_grad_batches={2 * accumulated}; "
        smaller += "batch_size=auto, which finds what fits; "
        raise OutOfMemory(
            f"out of memory with batch_size={rows} and max_seq_length={config['max_seq_length']}",
            fix=smaller * (rows > 1) + "a smaller max_seq_length or model",
        ) from error


def _fitting(config: Mapping[str, Any]) -> Fits:
    """How to find out on the accelerator that the config has."""
    kind, length = config["accelerator"]["name"], int(config["max_seq_length"])
    available = available_memory()  # before there is a model
    model = _model(config)
    half = HALF.get(str(config["trainer"]["precision"]))
    weights = sum(weight.nbytes for weight in model.parameters())
    processes = int(config["accelerator"]["devices"])
    if kind != "cpu":
        optimizer = instantiate(fill_environment(config["optimizer"], "optimizer"))
        device = torch.device("cuda" if kind == "gpu" else kind)
        return MemoryTrial(model, optimizer, length, device, half, spare=weights if processes > 1 else 0)
    row = _kept_for_a_row(model, length, half)
    copies = COPIES + (processes > 1)  # gradients on their way to the others
    return lambda rows: available is None or processes * (copies * weights + rows * row) <= SHARE * available


def _model(config: Mapping[str, Any]) -> Any:
    """The model that the run will train."""
    from bunryu.models.sources import check_length

    corpus = instantiate(fill_environment(config["corpus"], "corpus")).read().limited(config["limit_rows"])
    source = instantiate(fill_environment(config["model"], "model"))
    texts = [part for example in corpus.train for part in (example.text, example.pair) if part is not None]
    tokenizer = source.tokenizer(
        texts, corpus.cleaner, cache_folder(fill_environment(config["cache_dir"], "cache_dir"))
    )
    model = call(source.classifier, "model", tokenizer, corpus.label_names)
    check_length(model, config["max_seq_length"])
    return model.train()


class MemoryTrial:
    """Trains a model on batches of the longest rows, to see whether they fit a card.

    Args:
        model: is moved there.
        optimizer: a partial that takes parameters.
        length: tokens of a row.
        device: the card.
        half: 16 bits of mixed precision, or None.
        spare: bytes that have to be left over: gradients on their way to other cards.
    """

    def __init__(
        self,
        model: Any,
        optimizer: Callable[..., torch.optim.Optimizer],
        length: int,
        device: torch.device,
        half: torch.dtype | None,
        spare: int = 0,
    ) -> None:
        self._model, self._length, self._device, self._half = model, length, device, half
        self._spare = spare
        self._optimizer = optimizer(model.parameters())

    def __call__(self, rows: int) -> bool:
        """Whether batches of so many rows fit."""
        if self._device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(CARD_SHARE)
        try:
            self._two_steps(rows)
            return True
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return False
        finally:
            self._optimizer.zero_grad()
            self._optimizer.state.clear()
            self._model.cpu()  # nothing of it stays on the card, where another process may train
            gc.collect()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.set_per_process_memory_fraction(1.0)

    def _two_steps(self, rows: int) -> None:
        """From the first on the optimizer has a state."""
        self._model.to(self._device)
        _spare = torch.empty(self._spare, dtype=torch.uint8, device=self._device)
        for _ in range(2):
            _loss(self._model, rows, self._length, self._half).backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            self._optimizer.zero_grad()


def _kept_for_a_row(model: Any, length: int, half: torch.dtype | None) -> int:
    """Bytes that a forward pass keeps of a row for the backward one."""
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
    """The loss of rows of the longest kind."""
    device = next(model.parameters()).device
    token = 0 if model.config.pad_token_id else 1  # any but the padding
    ids = torch.full((rows, length), token, device=device)
    mixed: AbstractContextManager[Any] = torch.autocast(device.type, half) if half else nullcontext()
    with mixed:
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return cross_entropy(logits.float(), torch.zeros(rows, dtype=torch.long, device=device))
