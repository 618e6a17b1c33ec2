"""A predictor: the logits of its folder's own model, and nothing loaded that does not fit or runs code."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from bunryu.errors import BunryuError, ConfigError, ModelError
from bunryu.inference.opening import open_predictor
from bunryu.inference.predictor import load_predictor
from bunryu.runs.run import Run
from helpers.pickles import Payload
from helpers.refusing import edit_json, edit_weights, refused
from helpers.small_models import BERT, PAIRS, add_code, write_pair_model

TEXTS = ["영화가 좋다", "", "다시는 안 본다 " * 80, "ㅋㅋ", "배우 연기만 볼 만했다", "좋다 " * 200]


@pytest.fixture
def folder(trained: Run, tmp_path: Path) -> Path:
    """A copy of the trained run's model folder, alone."""
    return Path(shutil.copytree(trained.path / "model", tmp_path / "model"))


@pytest.fixture(scope="module")
def pair_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pair_model(tmp_path_factory.mktemp("pairs") / "model")


def load(folder: Path, **arguments: Any) -> Any:
    return load_predictor(folder, "model", device="cpu", **arguments)


def check(folder: Path) -> Any:
    return load(folder).check_parity()


def by_hand(folder: Path, texts: list[str], pairs: list[str] | None, length: int) -> np.ndarray:
    """Logits of transformers' own classes, one document at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = []
    for index, text in enumerate(texts):
        # lists of one, since transformers takes an empty second text alone for none
        parts = [[text]] if pairs is None else [[text], [pairs[index]]]
        inputs = tokenizer(*parts, truncation=True, max_length=length, return_tensors="pt")
        with torch.inference_mode():
            rows.append(model(**inputs).logits[0].numpy())
    return np.stack(rows)


@pytest.mark.cpus
def test_logits_are_those_of_tokenizer_and_model_called_by_hand(trained: Run) -> None:
    predictor = open_predictor(trained.path, device="cpu")
    assert (predictor.runtime, predictor.device, predictor.labels) == ("torch", "cpu", ("부정", "긍정"))
    assert predictor.check_parity() <= 1e-6
    expected = by_hand(trained.path / "model", TEXTS, None, 128)
    assert len({tuple(row) for row in expected.round(4).tolist()}) > 2
    found = predictor.predict(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    one_by_one = np.concatenate([predictor.predict([text]) for text in TEXTS])
    np.testing.assert_allclose(one_by_one, expected, rtol=0, atol=1e-6)
    encoded, batches = predictor.encode(TEXTS), [np.array([4, 0, 1]), np.array([5, 3, 2])]
    padded = predictor.logits(encoded, batches, padding="max_length")
    np.testing.assert_allclose(padded, expected, rtol=0, atol=1e-5)
    assert predictor.predict([]).shape == (0, 2)


@pytest.mark.cpus
def test_pairs_and_cleaning_as_by_hand(pair_folder: Path) -> None:
    predictor = load(pair_folder)
    dirty = ["a1b! c", "", "a " * 9, "b", "b"]
    clean = [predictor.metadata.cleaner(text) for text in dirty]
    assert clean[0] == "a b  c"
    seconds = [pair for _, pair in PAIRS]
    expected = by_hand(pair_folder, clean, seconds, 8)
    np.testing.assert_allclose(predictor.predict(dirty, seconds), expected, rtol=0, atol=1e-5)
    swapped = predictor.predict(seconds, dirty)
    assert np.abs(swapped - expected).max() > 0.01  # which text is first matters
    assert predictor.metadata.takes_pairs
    assert predictor.check_parity() <= 1e-6


def test_texts_are_composed_unless_the_folder_is_of_before(tmp_path: Path) -> None:
    model = write_pair_model(tmp_path / "model")
    texts = ["e\u0301", "é"]  # cleaned to a-z: an "e" is left of what is not composed
    assert load(model).encode(texts).offsets.tolist() == [0, 0, 0]
    edit_json(model / "bunryu.json", lambda facts: {**facts, "composed": False})
    assert load(model).encode(texts).offsets.tolist() == [0, 1, 1]


def test_a_changed_vocabulary_is_refused(folder: Path) -> None:
    def rotate(facts: Any) -> None:
        vocabulary = facts["model"]["vocab"]
        tokens = [token for token in vocabulary if vocabulary[token] > 4]
        ids = [vocabulary[token] for token in tokens]
        vocabulary.update(zip(tokens, ids[1:] + ids[:1], strict=True))

    def lengthen(facts: Any) -> None:
        facts["model"]["vocab"]["새낱말"] = len(facts["model"]["vocab"])

    edit_json(folder / "tokenizer.json", rotate)
    assert refused(ModelError, check, folder).what.startswith(
        "the loaded model is not the one that was saved"
    )
    edit_json(folder / "tokenizer.json", lengthen)
    assert refused(ModelError, load, folder).what.startswith("the tokenizer has ")


@pytest.mark.parametrize(
    ("change", "off"),
    [(lambda bias: bias.add_(1e-3), "0.001"), (lambda bias: bias.fill_(float("nan")), "inf")],
)
def test_changed_weights_are_refused(folder: Path, change: Callable[[torch.Tensor], Any], off: str) -> None:
    edit_weights(folder, lambda weights: change(weights["classifier.bias"]))
    error = refused(ModelError, check, folder)
    assert error.what.endswith(f"a logit is off by {off}, more than 0.0001")
    assert error.fix.startswith("weights, tokenizer or bunryu.json were changed")


@pytest.mark.cpus
def test_saved_logits_may_be_off_by_less_than_the_tolerance(folder: Path) -> None:
    def shift(facts: Any) -> None:
        facts["parity"][2]["logits"][1] += 1e-5

    edit_json(folder / "bunryu.json", shift)
    assert check(folder) == pytest.approx(1e-5, rel=0.1)


@pytest.mark.parametrize(
    ("facts", "error", "what"),
    [
        ({"max_seq_length": 1}, ModelError, "max_seq_length is 1, special tokens alone take 2"),
        ({"max_seq_length": 301}, ConfigError, "max_seq_length=301 is beyond the model's 300 positions"),
        (
            {"parity": [{"text": "", "logits": [0.5]}]},
            ModelError,
            "a parity sample has 1 logits, the model 2 classes",
        ),
    ],
)
def test_a_length_or_sample_that_cannot_be_is_refused(
    folder: Path, facts: dict[str, Any], error: type[BunryuError], what: str
) -> None:
    edit_json(folder / "bunryu.json", lambda metadata: {**metadata, **facts})
    assert refused(error, check, folder).what == what


@pytest.mark.parametrize(
    "changed",
    [
        {"id2label": {"0": "a", "1": "b", "2": "c"}},
        {"id2label": {"0": "a", "5": "b"}},
        {"id2label": ["a", "b"]},
        {"hidden_size": 64},
        {"num_hidden_layers": "two"},
        {"model_type": "no-such"},
        {"model_type": "gpt2"},
        {"quantization_config": {"quant_method": "gptq", "bits": 4}},
        {"attn_implementation": "flash_attention_2"},
        {"attn_implementation": "somebody/kernel"},
    ],
    ids=str,
)
def test_a_config_that_does_not_fit_is_refused(folder: Path, changed: dict[str, Any]) -> None:
    edit_json(folder / "config.json", lambda config: {**config, **changed})
    refused(ModelError, check, folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "bunryu.json"])
def test_a_missing_or_cut_file_is_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for cut in (0, 50, -50):
        (folder / name).write_bytes(content[:cut])
        refused(ModelError, check, folder)
    (folder / name).unlink()
    assert refused(ModelError, check, folder).where == str(folder)


def test_pickled_weights_are_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    torch.save({"x": Payload(tmp_path / "canary")}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert refused(ModelError, load, folder).what.startswith("the weights are a pickle, ")
    assert not (tmp_path / "canary").exists()


@pytest.mark.cpus
@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_code_beside_the_weights_is_never_run(folder: Path, tmp_path: Path, name: str) -> None:
    add_code(folder, name, tmp_path / "canary")
    assert check(folder) <= 1e-6
    edit_json(folder / name, lambda facts: {**facts, "model_type": "evil", "tokenizer_class": "Thing"})
    file = tmp_path / "a.ckpt"
    weights = load_file(folder / "model.safetensors")
    torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in weights.items()}}, file)
    for checkpoint in (None, file):
        with suppress(ModelError):
            load(folder, checkpoint=checkpoint)
    assert not (tmp_path / "canary").exists()


@pytest.mark.cpus
def test_a_checkpoint_gives_its_weights_and_samples(pair_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.ckpt"
    weights = load_file(pair_folder / "model.safetensors")
    weights["classifier.bias"] += torch.tensor([3.0, 0.0, 0.0])
    torch.save({"state_dict": {f"model.{name}": tensor for name, tensor in weights.items()}}, file)
    plain, moved = load(pair_folder), load(pair_folder, checkpoint=file)
    kept = moved.network.model.state_dict()
    assert set(kept) == set(weights)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in kept.items())
    assert np.abs(moved.predict(["a"], ["b"]) - plain.predict(["a"], ["b"])).max() > 1
    samples = [(sample.text, sample.pair) for sample in moved.metadata.parity]
    assert samples == [(sample.text, sample.pair) for sample in plain.metadata.parity] == PAIRS
    logits = moved.predict([PAIRS[0][0]], [PAIRS[0][1]])[0].tolist()
    assert moved.metadata.parity[0].logits == pytest.approx(logits, abs=1e-6, rel=0)
    assert moved.check_parity() <= 1e-6
    torch.save({"state_dict": {"model.x": torch.ones(1)}}, file)
    config = pair_folder / "config.json"
    edit_json(config, lambda facts: {**facts, "hidden_size": 1 << 30})  # refused before it takes memory
    refused(ModelError, load, pair_folder, checkpoint=file)
    edit_json(config, lambda facts: {**facts, "hidden_size": BERT["hidden_size"]})
    error = refused(ModelError, load, pair_folder, checkpoint=file)
    assert error.what.startswith("the weights lack bert.embeddings.LayerNorm.bias and ")
    assert error.where == str(file)


@pytest.mark.parametrize("device", ["cuda:7", "gpu", "", "cpu:x"])
def test_a_device_that_is_not_there_is_refused(trained: Run, device: str) -> None:
    error = refused(ConfigError, load_predictor, trained.path / "model", "m", device=device)
    assert error.what.startswith(f"no device '{device}': ")
    assert "\n" not in error.what


@pytest.mark.cpus
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_16_bits_have_a_wider_tolerance(folder: Path, dtype: torch.dtype) -> None:
    edit_weights(folder, lambda weights: weights.update({n: t.to(dtype) for n, t in weights.items()}))
    edit_json(folder / "config.json", lambda config: {**config, "dtype": str(dtype).removeprefix("torch.")})
    predictor = load(folder)
    assert next(predictor.network.model.parameters()).dtype == dtype
    assert 0.0 < predictor.check_parity() < 0.1
    edit_weights(folder, lambda weights: weights["classifier.bias"].add_(0.5))
    assert refused(ModelError, check, folder).what.endswith("more than 0.1")
