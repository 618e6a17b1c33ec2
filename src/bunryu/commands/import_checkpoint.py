"""``bunryu import-checkpoint``: a checkpoint of the tutorial's library, made a model folder."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bunryu.commands.arguments import Parser
from bunryu.data.cleaner import NO_CLEANING
from bunryu.errors import ConfigError, DownloadError, ModelError
from bunryu.system.files import refuse_occupied, replacing

if TYPE_CHECKING:
    import torch


NSMC_LABELS = ("부정", "긍정")  # classes 0 and 1 of the corpus the tutorial trains on
HEADS = ("classifier.weight", "classifier.out_proj.weight")  # BERT's, and RoBERTa's and ELECTRA's
SENTENCES = (
    "끝까지 눈을 뗄 수 없는 영화였다",
    "표 값이 아까웠어요...",
    "배우들 연기는 좋은데 이야기가 너무 늘어진다",
    "ㅋㅋㅋㅋ 오랜만에 실컷 웃었네요!",
    "OST만 기억에 남음",
    "다시는 안 본다",
    "",
    "음악도 화면도 이야기도 어느 하나 빠지는 것이 없어서 두 번 세 번 다시 보게 되는 작품이다. " * 20,
)  # the last is longer than most models take


def main(arguments: Sequence[str]) -> int:
    options = _parse(arguments)
    refuse_occupied(options.output)
    # Heavy imports follow the checks that need none.
    from bunryu.inference.predictor import load_predictor
    from bunryu.models.folder import write_model_folder
    from bunryu.models.weights import check_length, put_weights, read_weights

    read = read_weights(options.file)  # older versions of transformers kept position numbers among them
    weights = {name: value for name, value in read.items() if not name.endswith("embeddings.position_ids")}
    labels = _labels(options.labels, _classes(weights, options.file))
    model, tokenizer = _architecture(options.model, labels)
    check_length(model, options.max_seq_length)
    put_weights(model, weights, options.file)
    with replacing(options.output) as staging:
        write_model_folder(
            staging, model.eval(), tokenizer, NO_CLEANING, options.max_seq_length,
            [(sentence, None) for sentence in SENTENCES], {},
            {"model": options.model, "checkpoint": options.file.name},
        )  # fmt: skip
        load_predictor(staging, options.output.name, device="cpu").check_parity()
    print(f"wrote {options.output}")
    origin = "" if options.labels else " (not told by --labels: assumed)"
    print(f"labels: {', '.join(f'{index} = {name}' for index, name in enumerate(labels))}{origin}")
    print(f"next: bunryu predict {shlex.quote(str(options.output))}")
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = Parser("bunryu import-checkpoint", description=__doc__.replace("``", ""))
    parser.add_argument("file", type=Path, help="a .ckpt; nothing in it is run")
    parser.add_argument(
        "--model", required=True, help="what it was fine-tuned from, for config.json and vocabulary: "
        "a Hub name such as beomi/kcbert-base, or a folder",
    )  # fmt: skip
    parser.add_argument("--output", required=True, type=Path, help="the model folder to make")
    labels = "names of the classes in id order, with commas; for two classes 부정,긍정"
    parser.add_argument("--labels", help=labels)
    length = "tokens after which training cut texts (128)"
    parser.add_argument("--max-seq-length", type=int, default=128, help=length)
    options = parser.parse_args(arguments)
    if options.max_seq_length < 4:
        parser.error("--max-seq-length is at least 4")
    return options


def _classes(weights: dict[str, torch.Tensor], file: Path) -> int:
    for name in HEADS:
        if name in weights and weights[name].ndim == 2:
            return len(weights[name])
    fix = "a checkpoint of a document classifier"
    raise ModelError(f"the weights have no {HEADS[0]}", where=str(file), fix=fix)


def _labels(named: str | None, classes: int) -> list[str]:
    if named is None:
        return list(NSMC_LABELS) if classes == 2 else [f"LABEL_{index}" for index in range(classes)]
    labels = [label.strip() for label in named.split(",")]
    if not len(labels) == len(set(labels) - {""}) == classes:
        what, fix = f"'{named}' are not {classes} different labels", "a name for each class, with commas"
        raise ConfigError(what, where="--labels", fix=fix)
    return labels


def _architecture(name: str, labels: Sequence[str]) -> tuple[Any, Any]:
    """The classifier, its weights still random, and its tokenizer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from bunryu.models.sources import Pretrained

    source = Pretrained(
        name=name,
        lr=0.0,
        positions=None,
        network=partial(AutoModelForSequenceClassification.from_pretrained),
        # as the tutorial loads every tokenizer
        tokenizer_factory=partial(AutoTokenizer.from_pretrained, do_lower_case=False),
    )
    try:
        tokenizer = source.tokenizer([], NO_CLEANING, Path())
        return source.architecture(tokenizer, labels), tokenizer
    except DownloadError as error:
        fix = "check the network; or --model <a folder with config.json and vocab.txt>"
        raise DownloadError(error.what, where="--model", fix=fix) from error
