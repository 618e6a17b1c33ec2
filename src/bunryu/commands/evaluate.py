"""``bunryu evaluate``: score a run's own split, or a file, and write what it found into the run."""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bunryu.commands.arguments import Parser, add_corpus_arguments, add_model_arguments
from bunryu.commands.table_options import add_reader_arguments, flags_named, table_options
from bunryu.data.corpus import SPLITS
from bunryu.data.examples import Example, label_of, read_examples
from bunryu.data.normalisation import name_of
from bunryu.data.rows import RowCounts
from bunryu.errors import ConfigError, DataError, ModelError
from bunryu.inference.opening import OpenedModel, locate, open_predictor
from bunryu.reports.evaluation import write_evaluation
from bunryu.runs.run import Run

if TYPE_CHECKING:
    from bunryu.encoding.encoder import Encoded
    from bunryu.inference.predictor import Predictor


BATCH_SIZE = 32  # of a model folder alone; a run is scored in batches of its own size


@dataclass(frozen=True)
class Documents:
    """What is to be scored."""

    shown: str  # the split's name or the file's
    examples: list[Example]
    labels: list[int]  # class ids
    account: RowCounts | None
    warnings: list[str] = field(default_factory=list)


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    opened = locate(options.run)
    folder = opened.place("evaluations", _name(options), options.output)
    if options.data and folder.resolve() in options.data.resolve().parents:
        raise ConfigError("the file would be written over", where=f"--data {options.data}", fix="--name")
    if opened.run is None and options.data is None:
        raise ConfigError("a model folder alone has no corpus", where=str(opened.model), fix="--data FILE")
    with flags_named():
        documents = _file(options, opened) if options.data else _split(opened, options)
    from bunryu.encoding.encoder import unknown_tokens_warning

    predictor = open_predictor(options.run, options.checkpoint, options.runtime, options.device)
    predictor.check_parity()
    encoded, logits, how = score(predictor, documents.examples, opened.run)
    documents.warnings.extend(unknown_tokens_warning(encoded.count_of(predictor.unknown_id)))
    facts = {
        "run": opened.name, **_origin(opened), "data": documents.shown,
        "checkpoint": options.checkpoint or "best", "rows": len(documents.examples),
        "max_seq_length": predictor.metadata.max_seq_length,
        "truncated_rows": int(encoded.is_cut(predictor.metadata.max_seq_length).sum()),
        "unk_rate": encoded.share_of(predictor.unknown_id), **how, "warnings": documents.warnings,
    }  # fmt: skip
    report = write_evaluation(
        folder, documents.examples, np.array(documents.labels), logits, predictor.labels, facts,
        opened.run.metrics if opened.run else [], documents.account, options.spreadsheet_safe,
    )  # fmt: skip
    own = opened.run if options.data is None and options.checkpoint is None else None
    print(_summary(report, documents, folder, own, options.split))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser("bunryu evaluate", description=__doc__.replace("``", ""))
    add_model_arguments(parser)
    parser.add_argument("--split", choices=SPLITS, default="test", help="of the run's own corpus (test)")
    parser.add_argument("--data", type=Path, metavar="FILE", help="a labelled file instead of a split")
    parser.add_argument("--name", help="of the folder below RUN/evaluations (default: what is scored)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="instead of RUN/evaluations/<name>")
    safe = "an apostrophe before cells of predictions.csv that a spreadsheet would take for formulas"
    parser.add_argument("--spreadsheet-safe", action="store_true", help=safe)
    add_corpus_arguments(parser)
    reader = add_reader_arguments(parser)
    reader.add_argument("--label-column", metavar="NAME", help="the labels")
    reader.add_argument("--label-ids", action="store_true", help="the labels are class ids, counted from 0")
    return parser


def _name(options: argparse.Namespace) -> str:
    parts = [_of_path(options.data) if options.data else options.split]
    if options.checkpoint:
        path = Path(options.checkpoint)
        parts.append(path.stem if path.name == options.checkpoint else _of_path(path))
    parts += ["onnx"] if options.runtime == "onnx" else []
    name = options.name or re.sub(r"[^\w.-]+", "-", "-".join(parts)).lstrip(".-")
    if name in SPLITS and parts != [name]:
        raise ConfigError(f"'{name}' is the name of a split's own evaluation", where="--name", fix="another")
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise ConfigError(f"'{name}' cannot name a folder", where="--name", fix="letters, digits, - and _")
    return str(name)


def _of_path(path: Path) -> str:
    """A file's name, and what tells it from files of the same name in other folders."""
    return f"{path.name}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:6]}"


def _split(opened: OpenedModel, options: argparse.Namespace) -> Documents:
    """The run's own split, read as training read it."""
    from bunryu.training.inputs import corpus_of  # Hydra: only where a config is made into a corpus

    assert opened.run is not None
    split, corpus = options.split, corpus_of(opened.run, options.env, options.corpus_root, fetch=False)
    examples = corpus.split(split)
    if not examples:
        fix = f"--split {' or '.join(filter(corpus.split, SPLITS))}, or --data FILE"
        raise ConfigError(f"the run's corpus has no {split} split", where=f"--split {split}", fix=fix)
    recorded = {"labels": [], "fingerprint": "", **opened.run.manifest.get("corpus", {})}
    if list(map(name_of, corpus.label_names)) != list(map(name_of, recorded["labels"])):
        what = f"the corpus has the labels {list(corpus.label_names)[:10]}, the run {recorded['labels'][:10]}"
        raise ModelError(what, where=str(opened.run.path), fix="the files this run was trained on")
    warnings = []
    if corpus.fingerprint() != recorded["fingerprint"]:
        warnings.append("the corpus is no longer what the run was trained on: its figures will differ")
    return Documents(split, examples, corpus.label_ids(split), corpus.row_counts.get(split), warnings)


def _file(options: argparse.Namespace, opened: OpenedModel) -> Documents:
    """A labelled file; labels are spelt as in the run's corpus or as they are shown, or are class ids."""
    table = table_options(options.data, options, opened.run, opened.metadata.takes_pairs)
    ids = {str(id): id for id in range(len(opened.labels))} if options.label_ids else _label_ids(opened)
    columns = [table.text_column, table.label_column, *table.columns[1:]]
    hint = f"; if labels are class ids, from 0 = {opened.labels[0]} on: --label-ids"
    try:
        examples, account, _ = read_examples(options.data, columns, table.format, list(ids))
    except DataError as error:
        error.fix += hint * bool(re.search(r"unknown label '\d+'", error.fix))
        raise
    unknown = any(re.fullmatch(r"unknown label '\d+'", reason) for reason in account.rejected)
    rejected = account.read - account.used
    warnings = [f"{rejected} rows were rejected{hint * unknown}"] if rejected else []
    labels = [ids[example.label] for example in examples]
    return Documents(options.data.name, examples, labels, account, warnings)


def _label_ids(opened: OpenedModel) -> dict[str, int]:
    """Label as it may stand in a file -> class id: as in the run's corpus, or as shown."""
    names = opened.labels
    ids = {label_of(name) or name: index for index, name in enumerate(names)}
    spelt = (opened.run.config["corpus"].get("label_names") if opened.run is not None else None) or {}
    shown = {label_of(label) or str(label): label_of(name) or str(name) for label, name in spelt.items()}
    return {**{label: ids[name] for label, name in shown.items() if name in ids}, **ids}


def score(
    predictor: Predictor, examples: Sequence[Example], run: Run | None
) -> tuple[Encoded, Any, dict[str, Any]]:
    """The encoded documents, their logits of shape (examples, classes), and how they were scored.

    They are scored as the run scored its own, in its batches, threads and precision: that gives the same
    bits on the same machine.
    """
    import torch

    from bunryu.encoding.batching import evaluation_batches
    from bunryu.inference.predictor import TorchNetwork

    batch_size, padding = BATCH_SIZE, "longest"
    if run is not None:
        config, manifest = run.config, run.manifest
        batch_size, padding = config["datamodule"]["batch_size"], config["datamodule"]["padding"]
        if predictor.device == "cpu" and manifest.get("threads"):
            torch.set_num_threads(manifest["threads"])
        halves = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
        mixed = halves.get(str(config["trainer"]["precision"]))
        if mixed is not None and isinstance(predictor.network, TorchNetwork):
            predictor.network = TorchNetwork(predictor.network.model, mixed)
    pairs = None if examples[0].pair is None else [example.pair or "" for example in examples]
    encoded = predictor.encode([example.text for example in examples], pairs)
    batches = evaluation_batches(encoded.lengths(predictor.metadata.max_seq_length), batch_size)
    logits = predictor.logits(encoded, batches, padding)
    return encoded, logits, {
        "batch_size": batch_size, "device": predictor.device, "runtime": predictor.runtime,
        "threads": torch.get_num_threads(),
    }  # fmt: skip


def _origin(opened: OpenedModel) -> dict[str, str]:
    """Names of model and corpus; of a path only the last part, since pages are published."""
    if opened.run is None:
        return {}
    config = opened.run.config
    return {"model": Path(config["model"]["name"]).name, "corpus": config["corpus"]["name"]}


def _summary(
    report: Mapping[str, Any], documents: Documents, folder: Path, own: Run | None, split: str
) -> str:
    """The table that ends the console's output."""
    figures = ("loss", "accuracy", "f1_macro", "f1_micro", "expected_calibration_error")
    lines = [f"{documents.shown}: {len(documents.examples)} rows"]
    lines += [f"  {name:<28} {report[name]:.4f}" for name in figures]
    lines += [f"  warning: {warning}" for warning in documents.warnings]
    if own is not None:
        lines.append(f"  {_compared(report, own, {'validation': 'val'}.get(split, split))}")
    lines.append(f"  page    {folder / 'evaluation.html'}")
    lines.append(f"  files   {folder / 'evaluation.json'}, predictions.csv")
    return "\n".join(lines)


def _compared(report: Mapping[str, Any], run: Run, prefix: str) -> str:
    """Whether the run's own results.json says the same."""
    results = run.results
    recorded = {name: results.get(f"{prefix}/{name}") for name in report}
    known = {name: value for name, value in recorded.items() if isinstance(value, float)}
    if not known:
        return "results.json has no figures of this split"
    different = [name for name, value in known.items() if report[name] != value]
    if not different:
        return "the same as the run's results.json, to the last bit"
    largest = max(abs(report[name] - known[name]) for name in different)
    return f"not the run's results.json: {', '.join(different)} differ by up to {largest:.2g}"
