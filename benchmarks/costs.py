"""What training a BERT classifier costs on paper: FLOPs of matrix products, bytes, the floor in time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from bunryu.commands.train import conf_dir

Lengths = npt.NDArray[np.int64]

VALUE = {"fp32": 4, "bf16-mixed": 2}  # bytes of an activation

# Bytes that one training step moves for each weight of a matrix product. fp32: read forward and backward.
# bf16-mixed: read in fp32 and written in bf16 (6), read forward and backward (4), and its gradient
# written in bf16 and read again to become fp32 (4).
PRODUCT_WEIGHT = {"fp32": 4 + 4, "bf16-mixed": 6 + 4 + 4}
# And for every parameter, embeddings too: its gradient written (4), read for the norm (4), read and
# written where it is clipped (8); AdamW reads weight, gradient and two moments (16) and writes three (12).
PARAMETER = 4 + 4 + 8 + 16 + 12

# Values that a token's forward and backward read and write in one layer, as (times hidden, times inner);
# each kernel reads its inputs and writes its outputs once. Dropout's masks and embeddings are left out.
PRODUCTS = (30, 6)  # six linear layers: in + out forward, 2 in + 2 out backward
ATTENTION = (12, 0)  # fused: q, k, v read, the output written; backward those, its gradient and theirs
# Twice dropout (2 forward, 2 backward), residual sum (3, 3) and LayerNorm (2, 3); the gradients of q, k
# and v summed (6); GELU (2, 3).
ELEMENTWISE = (36, 5)
# The same where dropout, sum and LayerNorm are one kernel: forward it reads 2 and writes 2, backward it
# reads LayerNorm's input and the gradients that are to be summed there (2 or 4) and writes 2.
FUSED = (20, 5)


@dataclass(frozen=True)
class Shape:
    """A BERT classifier's sizes."""

    layers: int
    hidden: int
    inner: int
    vocabulary: int
    positions: int = 300
    classes: int = 2

    @classmethod
    def of(cls, config: Any) -> Shape:
        """A ``transformers.BertConfig``'s."""
        return cls(
            config.num_hidden_layers,
            config.hidden_size,
            config.intermediate_size,
            config.vocab_size,
            config.max_position_embeddings,
            config.num_labels,
        )

    @property
    def product_weights(self) -> int:
        """Weights of matrix products, biases left out."""
        hidden = self.hidden
        layer = 4 * hidden**2 + 2 * hidden * self.inner
        return self.layers * layer + hidden**2 + hidden * self.classes

    @property
    def parameters(self) -> int:
        """All of them; two token types."""
        hidden = self.hidden
        embeddings = (self.vocabulary + self.positions + 2) * hidden + 2 * hidden
        biases = self.layers * (9 * hidden + self.inner) + hidden + self.classes  # and LayerNorms
        return embeddings + self.product_weights + biases


# Published configs of the checkpoints; tiny and small are read from conf/model.
KCBERT = {"kcbert_base": Shape(12, 768, 3072, 30_000), "kcbert_large": Shape(24, 1024, 4096, 30_000)}


def shipped() -> dict[str, Shape]:
    """The models that bunryu ships a config of."""
    return {name: _from_conf(name) for name in ("tiny", "small")} | KCBERT


def _from_conf(name: str) -> Shape:
    node = yaml.safe_load((conf_dir() / "model" / f"{name}.yaml").read_text("utf-8"))
    sizes = node["architecture"]
    return Shape(
        sizes["num_hidden_layers"],
        sizes["hidden_size"],
        sizes["intermediate_size"],
        node["vocabulary_size"],
        node["positions"],
    )


def forward_flops(shape: Shape, lengths: Lengths) -> int:
    """FLOPs of a forward's matrix products over rows of these lengths, a multiplication and a sum being 2.

    A token takes 8 hidden^2 + 4 hidden inner in each layer, and 4 hidden for each token of its row
    (scores, weighted sum); a row takes 2 hidden^2 in the pooler and 2 hidden classes in the head.
    """
    tokens, pairs = int(lengths.sum()), int((lengths**2).sum())
    hidden = shape.hidden
    layer = (8 * hidden**2 + 4 * hidden * shape.inner) * tokens + 4 * hidden * pairs
    return shape.layers * layer + len(lengths) * (2 * hidden**2 + 2 * hidden * shape.classes)


def training_flops(shape: Shape, lengths: Lengths) -> int:
    """Forward and backward: backward has two products for each one, to the inputs and to the weights."""
    return 3 * forward_flops(shape, lengths)


def weight_bytes(shape: Shape, precision: str) -> int:
    """Bytes that one training step moves for the weights, however many tokens it has."""
    return PRODUCT_WEIGHT[precision] * shape.product_weights + PARAMETER * shape.parameters


def activation_bytes(shape: Shape, precision: str, *parts: tuple[int, int]) -> int:
    """Bytes that a token moves in such parts of all layers, forward and backward."""
    values = sum(hidden * shape.hidden + inner * shape.inner for hidden, inner in parts)
    return VALUE[precision] * shape.layers * values


@dataclass(frozen=True)
class Machine:
    """What a machine can do at the most: FLOP/s of matrix products, and bytes/s of its memory."""

    name: str
    source: str
    precision: str
    flops: float
    bandwidth: float


DATA_SHEETS = (
    Machine("H100 SXM", "data sheet", "bf16-mixed", 989e12, 3.35e12),
    Machine("A100 SXM 80 GB", "data sheet", "bf16-mixed", 312e12, 2.04e12),
    Machine("TPU v5e", "data sheet", "bf16-mixed", 197e12, 0.819e12),
)


@dataclass(frozen=True)
class Floor:
    """Seconds that a training takes at least: for its arithmetic, for its weights and its activations."""

    arithmetic: float
    weights: float
    activations: float

    @property
    def seconds(self) -> float:
        """The floor. Activations may stay in a cache, so they count for nothing here."""
        return max(self.arithmetic, self.weights)

    @property
    def bound(self) -> str:
        """What it is made of."""
        return "arithmetic" if self.arithmetic >= self.weights else "weights"


def floor(shape: Shape, on: Machine, lengths: Lengths, rows: int, batch: int) -> Floor:
    """The floor of one pass over rows whose lengths are distributed like these, without any padding."""
    scale = rows / len(lengths)
    moved = activation_bytes(shape, on.precision, PRODUCTS, ATTENTION, ELEMENTWISE)
    return Floor(
        scale * training_flops(shape, lengths) / on.flops,
        math.ceil(rows / batch) * weight_bytes(shape, on.precision) / on.bandwidth,
        scale * int(lengths.sum()) * moved / on.bandwidth,
    )


def intensity(shape: Shape, precision: str, lengths: Lengths, batch: int) -> float:
    """FLOPs of a training step for each byte that it moves for the weights."""
    flops = training_flops(shape, lengths) / len(lengths) * batch
    return flops / weight_bytes(shape, precision)


def check() -> None:
    """Compare the formulas with what PyTorch counts on real models, and with KcBERT by hand."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import BertConfig, BertForSequenceClassification

    shape, rows, length = Shape(2, 48, 80, 500, 40, 3), 5, 7
    config = BertConfig(
        num_hidden_layers=shape.layers,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_attention_heads=4,
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.positions,
        num_labels=shape.classes,
        attn_implementation="eager",  # whose two products PyTorch counts
    )
    model = BertForSequenceClassification(config)
    assert Shape.of(config) == shape
    assert shape.parameters == model.num_parameters(), (shape.parameters, model.num_parameters())
    lengths = np.full(rows, length)
    with FlopCounterMode(display=False) as counted:
        loss = model(torch.zeros(rows, length, dtype=torch.long), labels=torch.zeros(rows, dtype=torch.long))
        assert counted.get_total_flops() == forward_flops(shape, lengths)
        loss.loss.backward()
    assert counted.get_total_flops() == training_flops(shape, lengths)
    # one token: 12 layers of 8 * 589,824 + 4 * 2,359,296 + 4 * 768; then 2 * 589,824 + 4 * 768
    assert forward_flops(KCBERT["kcbert_base"], np.array([1])) == 12 * 14_158_848 + 1_182_720
