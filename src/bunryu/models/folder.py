"""The ``model/`` folder: a plain transformers folder with a card and what cleaning and parity need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from bunryu.data.cleaner import Cleaner
from bunryu.data.normalisation import normalised
from bunryu.models.metadata import ModelMetadata, ParitySample
from bunryu.system.files import disk_errors_at, write_atomically

PARITY_SAMPLES = 8
SAMPLE_CHARACTERS = 10_000  # of each text of a sample: whoever loads the folder reads and encodes them


def write_model_folder(
    folder: Path,
    model: Any,
    tokenizer: Any,
    cleaner: Cleaner,
    max_seq_length: int,
    samples: Sequence[tuple[str, str | None]],
    results: Mapping[str, Any] | None,
    facts: Mapping[str, str],
) -> None:
    """Write weights, config, tokenizer, card and bunryu.json.

    Args:
        folder: made if missing.
        model: the classifier, with its best weights.
        tokenizer: its tokenizer.
        cleaner: applied to each text before it is tokenized.
        max_seq_length: tokens after which training cut texts.
        samples: texts, or pairs; the logits of the first 8, cut to ``SAMPLE_CHARACTERS``, are saved, for a
            later loader to check itself by.
        results: the run's metrics, for the card; None before it is trained: no weights, logits and card, but
            with a checkpoint enough to predict, whatever becomes of the run.
        facts: names for the card: ``model``, and ``corpus`` and ``run`` or the imported ``checkpoint``.
    """
    folder.mkdir(exist_ok=True)
    # what a source's config said of another task would change what transformers' pipeline makes of logits
    for name in ("function_to_apply", "task_specific_params", "finetuning_task"):
        vars(model.config).pop(name, None)
    model.config.problem_type = "single_label_classification"
    with no_progress_bar(), disk_errors_at(folder):
        (model.config if results is None else model).save_pretrained(folder)
    # Saved with the length the model was trained at, so that truncation=True cuts where training did.
    tokenizer.model_max_length = max_seq_length
    tokenizer.backend_tokenizer.no_truncation()  # what its last call left would be saved with it
    tokenizer.backend_tokenizer.no_padding()
    with disk_errors_at(folder):
        tokenizer.save_pretrained(folder)
    inputs = (model, tokenizer, cleaner, max_seq_length)
    parity = []
    for text, pair in samples[:PARITY_SAMPLES]:
        texts = text[:SAMPLE_CHARACTERS], pair and pair[:SAMPLE_CHARACTERS]
        parity.append(ParitySample(*texts, () if results is None else _logits(*inputs, *texts)))
    ModelMetadata(cleaner, max_seq_length, parity, own_class(model)).write(folder)
    if results is not None:
        write_atomically(folder / "README.md", _card(model, max_seq_length, results, facts))


def own_class(model: Any) -> str | None:
    """The dotted name of a classifier's class; None for one of transformers' own."""
    kind = type(model)
    return None if kind.__module__.startswith("transformers.") else f"{kind.__module__}.{kind.__qualname__}"


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Keep transformers from drawing its own bars while inside."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _logits(
    model: Any, tokenizer: Any, cleaner: Cleaner, max_seq_length: int, text: str, pair: str | None
) -> tuple[float, ...]:
    """The logits of one document alone, unpadded, in float32."""
    model.eval()
    # as lists of one: given alone, an empty second text is taken for none
    texts = [[cleaner(normalised(part))] for part in (text, pair) if part is not None]
    inputs = tokenizer(*texts, truncation=True, max_length=max_seq_length, return_tensors="pt").to(
        model.device
    )
    with torch.inference_mode():
        logits = model(**inputs).logits[0].float().cpu()
    return tuple(logits.tolist())


def _published(model: str) -> str:
    """A Hub name as it is; of a folder only its last part, as a card may be published and paths not."""
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.is_dir() else model


def _card(model: Any, max_seq_length: int, results: Mapping[str, Any], facts: Mapping[str, str]) -> str:
    labels = ", ".join(f"{index} = {name}" for index, name in model.config.id2label.items())
    metrics = "\n".join(
        f"| {name} | {value:.4f} |" for name, value in results.items() if isinstance(value, float)
    )
    title, origin = _published(facts["model"]), f"imported by bunryu from `{facts.get('checkpoint')}`"
    if "run" in facts:
        title += f" on {facts['corpus']}"
        origin = f"fine-tuned with bunryu in the run `{facts['run']}`"
    table = f"\n| metric | value |\n| --- | --- |\n{metrics}\n" if metrics else ""
    return f"""---
library_name: transformers
pipeline_tag: text-classification
---
# {title}

A document classifier {origin}. Labels: {labels}.
{table}
```python
from transformers import pipeline

classify = pipeline("text-classification", model="<this folder>", truncation=True)
classify("...")
```

Texts were composed (Unicode NFC) and cut after {max_seq_length} tokens. `bunryu.json` holds the cleaning that
texts went through before they were tokenized: a caller without bunryu has to do both, too.
"""
