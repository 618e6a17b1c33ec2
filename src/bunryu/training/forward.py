"""From a batch to logits: the attention mask, 16-bit arithmetic and compilation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bunryu.encoding.batching import Batch

NOT_INPUTS = ("labels", "index", "weight")
# Encoders of transformers that hand a 4-D mask to attention as it is; a decoder would lose its causality.
ENCODERS = ("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")
COMPILED_SHAPES = 64  # of one function; PyTorch's own 8 are fewer than widths times training and evaluation


class Forward:
    """Calls a classifier on a batch. Not a Module, so that what is saved and exported is the plain model.

    Compiled, it has kernels for each shape of a batch; with autocast the weights stay in 32 bits.
    """

    def __init__(self, model: Any, *, compiled: bool, autocast: bool) -> None:
        self._takes_wide_mask = takes_wide_mask(model)
        self._autocast = autocast
        self._logits: Callable[..., torch.Tensor] = lambda **inputs: model(**inputs).logits
        if compiled:
            torch._dynamo.config.recompile_limit = COMPILED_SHAPES
            self._logits = torch.compile(self._logits, dynamic=False)

    def __call__(self, batch: Batch) -> torch.Tensor:
        """Logits of shape (rows, classes)."""
        inputs = {name: tensor for name, tensor in batch.items() if name not in NOT_INPUTS}
        device = inputs["input_ids"].device.type
        if device != "cpu" and self._takes_wide_mask:  # a CPU would take other kernels, with other bits
            inputs["attention_mask"] = wide_mask(inputs["attention_mask"])
        if not self._autocast:
            return self._logits(**inputs)
        with torch.autocast(device, dtype=torch.bfloat16):
            return self._logits(**inputs)


def wide_mask(mask: torch.Tensor) -> torch.Tensor:
    """What each token may attend to, boolean, of shape (rows, 1, width, width).

    Given a mask of shape (rows, width) transformers asks whether it masks anything at all, and so waits
    for the device in every step.
    """
    rows, width = mask.shape
    return mask.bool()[:, None, None, :].expand(rows, 1, width, width)


def takes_wide_mask(model: Any) -> bool:
    """Whether a model gives the same logits for ``wide_mask``'s mask as for the plain one."""
    config = getattr(model, "config", None)
    attention = getattr(config, "_attn_implementation", None)
    return getattr(config, "model_type", None) in ENCODERS and attention == "sdpa"
