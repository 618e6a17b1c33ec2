"""BERT models of a few kilobytes, and folders of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertTokenizer,
)

from bunryu.data.cleaner import Cleaner
from bunryu.models.folder import write_model_folder
from bunryu.models.sources import FromScratch, Pretrained, label_maps
from helpers.refusing import edit_json

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "영화", "배우", "##가", "A", "a", "좋다", "Film", "é"]
POSITIONS = 40
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "initializer_range": 0.5,  # logits that differ from each other
}
BERT: dict[str, Any] = {**SIZES, "vocab_size": len(WORDS), "max_position_embeddings": POSITIONS}


def scratch(vocabulary_file: str | None = None) -> FromScratch:
    """A source that learns 60 tokens."""
    architecture, network = partial(BertConfig, **SIZES), partial(BertForSequenceClassification)
    return FromScratch("mini", 1e-3, POSITIONS, 60, vocabulary_file, architecture, network)


def pretrained(
    name: Path | str,
    positions: int | None = None,
    family: Any = BertForSequenceClassification,
    **network: Any,
) -> Pretrained:
    tokenizer = partial(AutoTokenizer.from_pretrained, do_lower_case=False)
    return Pretrained(str(name), 1e-5, positions, partial(family.from_pretrained, **network), tokenizer)


def architecture_folder(folder: Path, **config: Any) -> Path:
    """config.json and vocab.txt, as a folder without weights."""
    folder.mkdir(exist_ok=True)
    BertConfig(**{**BERT, **config}).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", "utf-8")
    return folder


def weights_folder(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """The same with the weights of a language model: an encoder and another head."""
    architecture_folder(folder)
    BertForMaskedLM(BertConfig.from_pretrained(folder)).to(dtype).save_pretrained(folder)
    return folder


PAIRS = [("a b c", "d"), ("", "e f"), ("a " * 9, "h g"), ("b", "c " * 9), ("b", "")]


def write_pair_model(folder: Path) -> Path:
    """The folder of a model of pairs, cleaned of everything but letters, cut at 8 tokens."""
    torch.manual_seed(3)
    words = [*WORDS[:5], *"abcdefgh"]
    tokenizer = BertTokenizer(vocab={word: index for index, word in enumerate(words)}, do_lower_case=False)
    model = BertForSequenceClassification(BertConfig(**{**BERT, **label_maps(["x", "y", "z"])}))
    facts = {"model": "m", "corpus": "c", "run": "r"}
    write_model_folder(folder, model, tokenizer, Cleaner(allowed="a-z "), 8, PAIRS, {}, facts)
    return folder


def add_code(folder: Path, name: str, canary: Path) -> None:
    """Put code into a folder that would make the canary file, and name it in one of its files."""
    for module in ("evil.py", "__init__.py"):
        (folder / module).write_text(f"open({str(canary)!r}, 'w')\nclass Thing: pass\n", "utf-8")
    places: dict[str, Any] = dict.fromkeys(("AutoConfig", "AutoModelForSequenceClassification"), "evil.Thing")
    places["AutoTokenizer"] = ["evil.Thing", "evil.Thing"]
    code = {"auto_map": places, "trust_remote_code": True}
    edit_json(folder / name, lambda facts: {**facts, **code})
