"""Training KcBERT-base's architecture: bunryu against a bare PyTorch loop, and against this machine's peak.

12 layers, 768 wide, random weights. Both train on the same bucketed batches of 32 with equal weights at
the start, fused AdamW, clipping at 1.0, fp32 and the same threads, and are timed between the starts of two
batches. FLOP/s count the matrix products of real tokens alone (costs.training_flops): padding, GELU,
LayerNorm, dropout, embeddings, clipping and AdamW take time and count for nothing.
"""

from __future__ import annotations

import copy
import json
import logging
import statistics
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
from hydra import compose, initialize_config_dir

import costs
import machine
from bunryu.commands.train import conf_dir
from bunryu.config.record import resolved, to_recorded
from bunryu.data.cleaner import NO_CLEANING
from bunryu.encoding.batching import Batch
from bunryu.encoding.vocabulary import learn_wordpiece
from bunryu.runs.run import Run
from bunryu.system.signals import StopRequest
from bunryu.training.build import Experiment, build
from setting import SHARED, Reviews, arguments, print_table, reviews
from training import BATCH, LENGTH, WARM, bare, batches, lightning

ROWS = BATCH * 50  # whose batches are sorted by length together
BARE, PEAK = 0.97, 0.75  # targets


@dataclass(frozen=True)
class Round:
    """Rows a second of both, and FLOP/s of bunryu's real and computed tokens over the peak's."""

    bunryu: float
    bare: float
    real: float
    computed: float
    peak: float


def main() -> None:
    options = arguments(__doc__).parse_args()
    rounds, steps = (1, WARM + 3) if options.quick else (4, WARM + 13)
    for name in ("bunryu", "pytorch_lightning", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    costs.check()
    source = reviews(options.corpus_root)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = architecture(source, root)
        report(source, steps, [measure(source, root, model, steps, number) for number in range(rounds)])


def architecture(source: Reviews, root: Path) -> Path:
    """A folder with KcBERT-base's config and vocabulary, or with one learnt from reviews."""
    beside = SHARED / "models" / "kcbert-base"
    if (beside / "vocab.txt").is_file():
        return beside
    shape = costs.KCBERT["kcbert_base"]
    texts = [example.text for example in source.copy(root / "learnt", "train", 0, 20_000).examples("train")]
    vocabulary = learn_wordpiece(texts, shape.vocabulary, NO_CLEANING, root / "cache")
    folder = root / "kcbert-base"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(vocabulary), "utf-8")
    sizes = {"vocab_size": shape.vocabulary, "max_position_embeddings": shape.positions}  # else BERT's own
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **sizes}), "utf-8")
    return folder


def experiment(root: Path, corpus_root: Path, model: Path, steps: int) -> Experiment:
    """The shipped run on these rows, without the gigabyte of a checkpoint in the end."""
    overrides = [
        "model=kcbert_base",
        f"model.name='{model}'",
        "corpus=nsmc",
        "corpus.validation=test",  # so that every row of train can be trained on
        f"corpus.root_dir='{corpus_root}'",
        f"cache_dir='{root / 'cache'}'",
        "accelerator=cpu",
        "epochs=1",
        f"batch_size={BATCH}",
        f"max_seq_length={LENGTH}",
        "callbacks.best_checkpoint=null",
        "callbacks.last_checkpoint=null",
        "+trainer.limit_val_batches=0",
        f"+trainer.limit_train_batches={steps}",
    ]
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = to_recorded(compose("train", overrides))
    run = Run.create(root / "outputs", "benchmark", config, [], [])
    pl.seed_everything(config["seed"], verbose=False)
    return build(resolved(run.config, str(run.path)), run, StopRequest())


def measure(source: Reviews, root: Path, model: Path, steps: int, number: int) -> Round:
    """Both ways on this round's own rows, the peak before and after; odd rounds go in reverse."""
    corpus_root = root / f"round-{number}"
    source.copy(corpus_root / "nsmc", "train", number * ROWS, ROWS)
    source.copy(corpus_root / "nsmc", "test", 0, BATCH)
    ours = experiment(root, corpus_root, model, steps)
    shape = costs.Shape.of(ours.task.model.config)
    assert shape == costs.KCBERT["kcbert_base"], shape
    bare_model = copy.deepcopy(ours.task.model)
    epoch = list(batches(ours.datamodule.train, ours.tokenizer.pad_token_id, "bucketed", "longest"))[:steps]
    ways: dict[str, Callable[[], float]] = {
        "bunryu": lambda: lightning(ours),
        "bare": lambda: bare(bare_model, epoch),
    }
    names = list(ways) if number % 2 == 0 else list(reversed(ways))
    before = machine.matmul_gflops()
    rates = {name: ways[name]() for name in names}
    peak = max(before, machine.matmul_gflops())
    timed = epoch[WARM:-1]
    seconds = BATCH * len(timed) / rates["bunryu"]
    real, computed = (sum(map(count, timed)) / seconds / 1e9 / peak for count in (real_flops, computed_flops))
    return Round(rates["bunryu"], rates["bare"], real, computed, peak)


def real_flops(batch: Batch) -> int:
    """Of a batch's tokens without padding."""
    lengths = batch["attention_mask"].sum(dim=1).numpy()
    return costs.training_flops(costs.KCBERT["kcbert_base"], lengths)


def computed_flops(batch: Batch) -> int:
    """Of all that is computed."""
    rows, width = batch["input_ids"].shape
    return costs.training_flops(costs.KCBERT["kcbert_base"], np.full(rows, width))


def report(source: Reviews, steps: int, rounds: list[Round]) -> None:
    print(
        f"Training KcBERT-base's architecture with random weights on {source.name}, batch {BATCH}, fp32, "
        f"{steps - WARM - 1} steps timed a round, medians of {len(rounds)} rounds. {machine.describe()}\n"
    )
    lines: dict[str, tuple[list[float], str, str]] = {
        "bunryu, rows/s": ([one.bunryu for one in rounds], ".2f", ""),
        "bare PyTorch loop, the same batches, rows/s": ([one.bare for one in rounds], ".2f", ""),
        "bunryu / bare loop": ([one.bunryu / one.bare for one in rounds], ".3f", f">= {BARE}"),
        "real tokens' FLOP/s / matrix product's peak": ([one.real for one in rounds], ".3f", f">= {PEAK}"),
        "computed tokens' FLOP/s / the peak": ([one.computed for one in rounds], ".3f", ""),
        "fp32 matrix product's peak, GFLOP/s": ([one.peak for one in rounds], ".0f", ""),
    }
    table = [
        [name, f"{statistics.median(some):{form}}", f"{min(some):{form}} to {max(some):{form}}", target]
        for name, (some, form, target) in lines.items()
    ]
    print_table(["KcBERT-base", "median", "rounds", "target"], table)


if __name__ == "__main__":
    main()
