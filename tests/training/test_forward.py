"""From a batch to logits: two masks with one answer, and compilation that leaves the model as it was."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
import transformers

from bunryu.training.forward import ENCODERS, Forward, takes_wide_mask, wide_mask

SIZES: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 20,
}  # fmt: skip
DISTILLED: dict[str, Any] = {
    "vocab_size": 40, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 20,
}  # fmt: skip


def a_model(kind: str, **options: Any) -> Any:
    torch.manual_seed(0)
    sizes = DISTILLED if kind == "distilbert" else SIZES
    config = transformers.AutoConfig.for_model(kind, initializer_range=0.3, **sizes)
    return transformers.AutoModelForSequenceClassification.from_config(config, **options).eval()


def a_batch(width: int = 9) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    mask = torch.ones(3, width, dtype=torch.int64)
    mask[0, 4:], mask[1, 1:] = 0, 0
    ids, rows = torch.randint(3, 40, (3, width)) * mask, torch.arange(3)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "labels": rows,
        "index": rows,
        "weight": torch.tensor(0.5),
    }


def logits_of(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits  # type: ignore[no-any-return]


@pytest.mark.cpus
@pytest.mark.parametrize("kind", ENCODERS)
def test_the_wide_mask_gives_the_logits_of_the_plain_one(kind: str) -> None:
    model, batch = a_model(kind), a_batch()
    assert takes_wide_mask(model)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    with torch.no_grad():
        plain, wide, none = (
            model(input_ids=ids, attention_mask=m).logits for m in (mask, wide_mask(mask), None)
        )
    torch.testing.assert_close(wide, plain, atol=1e-5, rtol=0)
    assert (none - plain).abs().max() > 1e-4  # so the mask did something


def test_other_models_keep_the_plain_mask() -> None:
    assert not takes_wide_mask(a_model("bert", attn_implementation="eager"))  # adds the mask to the scores
    config = transformers.GPT2Config(n_layer=1, n_head=1, n_embd=4, vocab_size=9)
    assert not takes_wide_mask(transformers.GPT2ForSequenceClassification(config))  # loses its causality


@pytest.mark.cpus
def test_logits_are_the_model_s_to_the_last_bit_and_bfloat16_is_near() -> None:
    model, batch = a_model("bert"), a_batch()
    expected = logits_of(model, batch)
    assert torch.equal(Forward(model, compiled=False, autocast=False)(batch), expected)
    near = Forward(model, compiled=False, autocast=True)(batch)
    assert near.dtype == torch.bfloat16
    torch.testing.assert_close(near.float(), expected, atol=0.02, rtol=0)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.full
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")
@pytest.mark.filterwarnings("default")
def test_real_kernels_give_the_same_logits() -> None:
    model, batch = a_model("bert"), a_batch()
    with torch.no_grad():
        expected, compiled = (Forward(model, compiled=c, autocast=False)(batch) for c in (False, True))
    torch.testing.assert_close(compiled, expected, atol=1e-5, rtol=0)
    torch._dynamo.reset()
