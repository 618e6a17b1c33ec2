"""Weights, disk and memory that are not there, found before a run needs them."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

from bunryu.config import schema
from bunryu.config.compose import composed, composing
from bunryu.preflight import problems
from bunryu.training import inputs


def test_the_hub_is_asked_for_the_weights_size_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import EntryNotFoundError

    asked: list[str] = []
    served = {"model.safetensors.index.json"}

    def metadata(url: str, timeout: float) -> object:
        asked.append(url.rpartition("/")[2])
        if asked[-1] in served:
            return object()
        raise EntryNotFoundError("404")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", metadata)
    with composing():
        config = schema.container(composed(["model=pretrained", "model.name=someone/model"])[0])
    assert problems.weights_problem(config["model"]) is None
    assert asked == ["model.safetensors", "model.safetensors.index.json"]
    served.clear()
    problem = problems.weights_problem(config["model"])
    assert problem is not None
    assert problem.what.endswith("https://huggingface.co: it has no safetensors weights")
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: "/there")
        assert problems.weights_problem(config["model"]) is None


def test_an_architecture_stands_in_for_weights_that_are_not_here(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with composing():
        overrides = ["model=pretrained", f"model.name={tmp_path / 'hub'}", "limit_rows=40"]
        config = schema.container(composed(overrides)[0])
    transformers.BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2).save_pretrained(
        tmp_path / "hub"
    )
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "가", "나", "다", "라"]
    (tmp_path / "hub" / "vocab.txt").write_text("\n".join(words), "utf-8")
    corpus = inputs.read_corpus(config)
    _, tokenizer = inputs.tokenizer_of(config, corpus)
    splits = inputs.encode_splits(config, corpus, tokenizer)
    assert {name: len(split) for name, split in splits.items()} == {"train": 40, "validation": 40, "test": 40}
    stand_in = problems.stand_in(config["model"], tokenizer, folder)
    assert stand_in == {**config["model"], "name": str(folder)}
    assert problems.is_here(stand_in)
    assert transformers.AutoConfig.from_pretrained(folder).hidden_size == 4
    assert len(transformers.AutoTokenizer.from_pretrained(folder)) == 9


def test_room_that_is_not_there_is_named(tmp_path: Path) -> None:
    root = tmp_path / "runs" / "below"
    assert problems.room_problems(root, 1, 1, at_once=1, on_cpu=True) == []
    disk, memory = problems.room_problems(root, 1 << 60, 1 << 50, at_once=2, on_cpu=True)
    assert disk.what.startswith("the runs need 1073741824.00 GiB on disk, ")
    assert memory.what.startswith("the jobs need 2097152.00 GiB of memory, the machine has ")
    assert memory.where == "batch_size and max_seq_length; 2 jobs at a time"
    assert len(problems.room_problems(root, 1, 1 << 50, at_once=1, on_cpu=False)) == 0
