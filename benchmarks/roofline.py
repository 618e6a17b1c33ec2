"""What training has to cost, here and on accelerators: FLOPs, bytes, the floor in time; what it costs here.

``--write docs/roofline.md`` writes the page too, and its plot beside it as ``roofline.png``.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import statistics
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

import costs
import machine
import roofline_plot
from bunryu.data.cleaner import NO_CLEANING
from bunryu.encoding.batching import Batch, training_batches
from bunryu.encoding.encoder import smallest_dtype, tokenize, untruncating
from costs import ATTENTION, DATA_SHEETS, ELEMENTWISE, FUSED, PRODUCTS, Floor, Lengths, Machine, Shape
from setting import SHARED, arguments, print_table, reviews
from training import BATCH, LENGTH, WARM, bare

EPOCH_ROWS = 142_500  # what bunryu trains on of NSMC's 150,000
MEDIAN_TOKENS, MEAN_TOKENS = 15, 19.6  # of NSMC with KcBERT's vocabulary
LARGER = 256  # a batch for comparison
COPIED = 1 << 29  # bytes of the array whose copying is timed
HEADS = 4


@dataclass(frozen=True)
class Sizes:
    """How much is measured: points of each curve, and training steps of a point."""

    rows: tuple[int, ...] = (320, 640, 1280, 2560)
    lengths: tuple[int, ...] = (8, 16, 32, 64, 128, 256)
    widths: tuple[int, ...] = (64, 128, 192, 256, 384, 512)
    steps: int = WARM + 5
    encoded: int = EPOCH_ROWS


QUICK = Sizes((192, 320), (8, 32, LENGTH), (64, 128), WARM + 2, 5000)


@dataclass(frozen=True)
class Point:
    """A measured training on this CPU and its floor, in seconds."""

    at: int
    measured: float
    floor: Floor


@dataclass(frozen=True)
class Measured:
    """How ``small`` grows with rows, length and width; FLOP/s are of the real tokens of the most rows."""

    rows: list[Point]
    lengths: list[Point]
    widths: list[Point]
    real_flops: float

    @property
    def bucketed(self) -> float:
        """Rows a second of bucketed batches."""
        return self.rows[-1].at / self.rows[-1].measured

    @property
    def padded(self) -> float:
        """Rows a second padded to ``LENGTH``."""
        return next(BATCH / point.measured for point in self.lengths if point.at == LENGTH)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--write", type=Path, help="a Markdown file to write too, with its plot beside it")
    options = parser.parse_args()
    for name in ("bunryu", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    costs.check()
    sizes = QUICK if options.quick else Sizes()
    lengths, told = document_lengths(options.corpus_root, sizes.encoded)
    here = this_machine()
    measured = measure(lengths, here, sizes)
    with contextlib.redirect_stdout(io.StringIO()) as page:
        report(lengths, told, here, measured)
    print(page.getvalue())
    if options.write is not None:
        options.write.write_text(page.getvalue().rstrip() + "\n", "utf-8")
        roofline_plot.draw(plots(lengths, here, measured), options.write.with_suffix(".png"))


def document_lengths(root: Path | None, rows: int) -> tuple[Lengths, str]:
    """Tokens of reviews with KcBERT's vocabulary, and where they are from."""
    source, folder = reviews(root), SHARED / "models" / "kcbert-base"
    if source.name == "NSMC" and (folder / "vocab.txt").is_file():
        backend = untruncating(AutoTokenizer.from_pretrained(folder, do_lower_case=False))
        texts = [example.text for example in source.examples("train")[:rows]]
        _, offsets = tokenize(backend, NO_CLEANING, texts, smallest_dtype(backend))
        specials = 2
        return np.minimum(np.diff(offsets) + specials, LENGTH), (
            f"{rows:,} reviews of NSMC with KcBERT's vocabulary"
        )
    spread = math.sqrt(2 * math.log(MEAN_TOKENS / MEDIAN_TOKENS))
    normal = statistics.NormalDist(math.log(MEDIAN_TOKENS), spread)
    drawn = np.array([math.exp(normal.inv_cdf((row + 0.5) / rows)) for row in range(rows)])
    shuffled = np.random.default_rng(7).permutation(drawn).round().astype(np.int64)
    return np.clip(shuffled, 3, LENGTH), (
        f"a log-normal distribution with NSMC's mean of {MEAN_TOKENS} and median of {MEDIAN_TOKENS}"
    )


def this_machine() -> Machine:
    """The peak of its fp32 matrix product, and the bytes a second that a copy reads and writes."""
    source = torch.ones(COPIED // 4)
    target = torch.empty_like(source)
    best = math.inf
    for _ in range(machine.REPEATS):
        start = time.perf_counter()
        target.copy_(source)
        best = min(best, time.perf_counter() - start)
    return Machine("this CPU", "measured", "fp32", machine.matmul_gflops() * 1e9, 2 * COPIED / best)


def measure(lengths: Lengths, here: Machine, sizes: Sizes) -> Measured:
    """A bare PyTorch loop on random tokens."""
    small = costs.shipped()["small"]
    rows = []
    bare(classifier(small), random_batches(small, [BATCH * [20]] * (WARM + 2)))
    for count in sizes.rows:
        plan = training_batches(lengths[:count], BATCH, "bucketed", 7, 0)
        batches = list(random_batches(small, [lengths[:count][index].tolist() for index in plan]))
        model = classifier(small)
        start = time.perf_counter()
        bare(model, batches)
        seconds = time.perf_counter() - start
        rows.append(Point(count, seconds, costs.floor(small, here, lengths[:count], count, BATCH)))
    narrow = [Shape(small.layers, width, 4 * width, small.vocabulary) for width in sizes.widths]
    flops = costs.training_flops(small, lengths[: rows[-1].at])
    return Measured(
        rows,
        [Point(length, *step(small, length, here, sizes)) for length in sizes.lengths],
        [Point(shape.hidden, *step(shape, 20, here, sizes)) for shape in narrow],
        flops / rows[-1].measured,
    )


def step(shape: Shape, length: int, here: Machine, sizes: Sizes) -> tuple[float, Floor]:
    """Seconds of a training step whose rows all have this length, and its floor."""
    speed = bare(classifier(shape), random_batches(shape, [BATCH * [length]] * sizes.steps))
    return BATCH / speed, costs.floor(shape, here, np.full(BATCH, length), BATCH, BATCH)


def classifier(shape: Shape) -> Any:
    return BertForSequenceClassification(
        BertConfig(
            num_hidden_layers=shape.layers,
            hidden_size=shape.hidden,
            intermediate_size=shape.inner,
            num_attention_heads=HEADS,
            vocab_size=shape.vocabulary,
            max_position_embeddings=shape.positions,
        )
    )


def random_batches(shape: Shape, batches: Sequence[Sequence[int]]) -> Iterator[Batch]:
    """Batches of random tokens whose rows have these lengths, padded to the longest."""
    generator = torch.Generator().manual_seed(7)
    for lengths in batches:
        rows, width = len(lengths), max(lengths)
        yield {
            "input_ids": torch.randint(shape.vocabulary, (rows, width), generator=generator),
            "attention_mask": (torch.arange(width) < torch.tensor(lengths)[:, None]).long(),
            "token_type_ids": torch.zeros(rows, width, dtype=torch.long),
            "labels": torch.zeros(rows, dtype=torch.long),
        }


def report(lengths: Lengths, told: str, here: Machine, measured: Measured) -> None:
    """Print the page."""
    print(
        "# Roofline\n\n"
        "What training costs on paper, and how near this machine comes to it. `python benchmarks/roofline.py "
        "--write docs/roofline.md` measures and writes this page.\n\n"
        f"**Measured on** {machine.describe()}; a copy reads and writes {here.bandwidth / 1e9:.1f} GB/s. "
        f"**Lengths:** {told}, {lengths.mean():.1f} tokens on average.\n\n"
        "![FLOP/s a machine allows, and seconds over rows, length and width](roofline.png)\n"
    )
    print_costs(lengths)
    print_floors(lengths, here)
    print_padding(lengths, measured)
    print_compilation(lengths, here)
    print_growth(measured)


def print_costs(lengths: Lengths) -> None:
    print(
        "## FLOPs and bytes a token\n\n"
        "A token's forward takes 8 h² + 4 h f FLOPs of matrix products in each layer (h wide, f inside) and "
        "4 h for each token of its row; a row takes 2 h² + 2 h classes in the end. Backward takes twice as "
        "many. The formulas equal what PyTorch's FlopCounterMode counts. Bytes are those of training "
        f"with batches of {BATCH} rows: a step moves every weight and AdamW's moments once in each kernel "
        "that needs them, shared by its tokens; activations as if no cache held them.\n"
    )
    rows = []
    for name, shape in costs.shipped().items():
        flops = costs.training_flops(shape, lengths) / lengths.sum()
        row = [
            name,
            shape.layers,
            shape.hidden,
            f"{shape.parameters / 1e6:.1f}",
            short(flops / 3e6),
            short(flops / 1e6),
        ]
        for precision in costs.VALUE:
            weights = costs.weight_bytes(shape, precision) / BATCH / lengths.mean()
            moved = costs.activation_bytes(shape, precision, PRODUCTS, ATTENTION, ELEMENTWISE)
            row += [short(weights / 1e3), short(moved / 1e3)]
        rows.append([*row, short(costs.intensity(shape, "fp32", lengths, BATCH))])
    print_table(
        ["model", "layers", "width", "M parameters", "forward MFLOP", "training MFLOP",
         "fp32: weights KB", "activations KB", "bf16-mixed: weights KB", "activations KB",
         "FLOPs a byte of weights"],
        rows,
    )  # fmt: skip


def print_floors(lengths: Lengths, here: Machine) -> None:
    print(
        f"## The floor of an epoch of NSMC\n\n"
        f"{EPOCH_ROWS:,} rows without padding, in seconds. The floor is the larger of arithmetic (FLOPs over "
        "the peak) and weights (bytes over the memory's). Activations come on top where no cache holds them; "
        "one may hold tiny's weights too. Not in it: what starting a kernel costs, which small models on "
        "large accelerators mostly wait for. Accelerators' peaks are data-sheet figures, not measured: "
        + "; ".join(
            f"{on.name} {on.flops / 1e12:g} TFLOP/s bf16 dense, {on.bandwidth / 1e12:g} TB/s"
            for on in DATA_SHEETS
        )
        + ".\n"
    )
    rows = []
    for name, shape in costs.shipped().items():
        for on in (here, *DATA_SHEETS):
            one = costs.floor(shape, on, lengths, EPOCH_ROWS, BATCH)
            larger = costs.floor(shape, on, lengths, EPOCH_ROWS, LARGER)
            row = [name, f"{on.name} ({on.source}, {on.precision})"]
            row += [short(part) for part in (one.arithmetic, one.weights, one.activations)]
            rows.append([*row, *(f"{short(each.seconds)} ({each.bound})" for each in (one, larger))])
    print_table(
        [
            "model",
            "machine",
            "arithmetic",
            "weights",
            "activations",
            f"floor, batches of {BATCH}",
            f"of {LARGER}",
        ],
        rows,
    )


def print_padding(lengths: Lengths, measured: Measured) -> None:
    print(
        "## What padding is worth\n\n"
        "Tokens computed for each real one over all rows, the FLOPs of `small` that this makes, and its "
        f"speed here (bare loop, batches of {BATCH}).\n"
    )
    small, real = costs.shipped()["small"], int(lengths.sum())
    widths = {"bucketed, padded to the longest": padded_to_longest(lengths, "bucketed"),
              "random, padded to the longest": padded_to_longest(lengths, "random"),
              f"padded to {LENGTH}": np.full(len(lengths), LENGTH)}  # fmt: skip
    speeds = [measured.bucketed, None, measured.padded]
    least = costs.training_flops(small, widths["bucketed, padded to the longest"])
    print_table(
        ["batches", "tokens computed", "FLOPs / bucketed", "measured rows/s", "measured bucketed / it"],
        [
            [way, f"{padded.sum() / real:.2f}", f"{costs.training_flops(small, padded) / least:.2f}"]
            + ([f"{speed:.1f}", f"{measured.bucketed / speed:.2f}"] if speed else ["", ""])
            for (way, padded), speed in zip(widths.items(), speeds, strict=True)
        ],
    )


def padded_to_longest(lengths: Lengths, batching: str) -> Lengths:
    """Each row's length in an epoch's batches, padding counted."""
    plan = training_batches(lengths, BATCH, batching, 7, 0)
    return np.concatenate([np.full(len(index), lengths[index].max()) for index in plan])


def print_compilation(lengths: Lengths, here: Machine) -> None:
    print(
        "## What compilation is worth, on paper\n\n"
        "`compile=true` makes one kernel of dropout, residual sum and LayerNorm. The bytes that this spares, "
        "and the seconds an epoch of NSMC they stand for where no cache holds activations. It also spares "
        "starting kernels, which is not counted; on the CPU it gave nothing that could be measured.\n"
    )
    rows = []
    for name, shape in costs.shipped().items():
        eager, fused = (
            costs.activation_bytes(shape, "bf16-mixed", PRODUCTS, ATTENTION, part)
            for part in (ELEMENTWISE, FUSED)
        )
        spared = (eager - fused) * lengths.mean() * EPOCH_ROWS
        seconds = [short(spared * costs.VALUE[on.precision] / costs.VALUE["bf16-mixed"] / on.bandwidth)
                   for on in (here, *DATA_SHEETS)]  # fmt: skip
        rows.append(
            [name, short(eager / 1e3), short(fused / 1e3), f"{100 * (1 - fused / eager):.0f}%", *seconds]
        )
    print_table(
        [
            "model",
            "KB a token, bf16",
            "compiled",
            "spared",
            *(f"s on {on.name}" for on in (here, *DATA_SHEETS)),
        ],
        rows,
    )


def print_growth(measured: Measured) -> None:
    print(
        "## How cost grows\n\n"
        f"`small` trained here by a bare loop in batches of {BATCH}, the points of the plot. Rows: bucketed "
        f"batches of NSMC's lengths, linear. Length: every row of so many tokens, a little more than linear. "
        "Width: 20 tokens a row, four times as much for twice the width once the matrix products outweigh "
        "the rest.\n"
    )
    rows = []
    for what, points in (
        ("{:,} rows", measured.rows),
        ("a step, {} tokens a row", measured.lengths),
        ("a step, {} wide", measured.widths),
    ):
        for point in points:
            share = f"{100 * point.floor.seconds / point.measured:.0f}%"
            rows.append([what.format(point.at), short(point.measured), short(point.floor.seconds), share])
    print_table(["training", "measured s", "floor s", "floor / measured"], rows)


def plots(lengths: Lengths, here: Machine, measured: Measured) -> list[str]:
    """The page's charts as SVG."""
    base, small = costs.shipped()["kcbert_base"], costs.shipped()["small"]
    marks = [
        (on, batch, costs.intensity(base, on.precision, lengths, batch))
        for on in (here, *DATA_SHEETS)
        for batch in (BATCH, LARGER)
    ]
    own = (costs.intensity(small, here.precision, lengths, BATCH), measured.real_flops)
    return [
        roofline_plot.roofs("kcbert_base: FLOP/s allowed", marks, own),
        *(
            roofline_plot.growth(
                title, [(p.at, scale * p.measured, scale * p.floor.seconds) for p in points], label
            )
            for title, points, scale, label in (
                ("small, seconds over rows", measured.rows, 1, "rows"),
                ("small, ms a step over length", measured.lengths, 1000, "tokens a row"),
                ("4 layers, ms a step over width", measured.widths, 1000, "width"),
            )
        ),
    ]


def short(value: float) -> str:
    """Three digits that count, without an exponent."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.10g}"


if __name__ == "__main__":
    main()
