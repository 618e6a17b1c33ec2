"""Weights that are not there, found before a run needs them."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers

from bunryu.config import schema
from bunryu.config.compose import composed, composing
from bunryu.errors import DownloadError
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
    problems.check_weights(config["model"])
    assert asked == ["model.safetensors", "model.safetensors.index.json"]
    served.clear()
    with pytest.raises(DownloadError, match=r"//huggingface\.co: it has no safetensors weights") as caught:
        problems.check_weights(config["model"])
    assert caught.value.fix.startswith("+model.network.revision=refs/pr/<number>")
    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: "/there")
        problems.check_weights(config["model"])


def test_an_architecture_stands_in_for_weights_that_are_not_here(tmp_path: Path) -> None:
    hub, folder = tmp_path / "hub", tmp_path / "model"
    with composing():
        config = schema.container(composed(["model=pretrained", f"model.name={hub}"])[0])
    transformers.BertConfig(vocab_size=9, hidden_size=4, num_attention_heads=2).save_pretrained(hub)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "가", "나", "다", "라"]
    (hub / "vocab.txt").write_text("\n".join(words), "utf-8")
    _, tokenizer = inputs.tokenizer_of(config, inputs.read_corpus(config))
    stand_in = problems.stand_in(config["model"], tokenizer, folder)
    assert stand_in == {**config["model"], "name": str(folder)}
    assert problems.is_here(stand_in)
    assert transformers.AutoConfig.from_pretrained(folder).hidden_size == 4
    assert len(transformers.AutoTokenizer.from_pretrained(folder)) == 9
