"""The kinds of a run directory's records, of all that is read of them outside the classes a config names."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NotRequired

from annotated_types import Interval, Predicate

from bunryu.system.records import mapping

MAX_THREADS = 1024
MAX_BATCH_SIZE = 2**31


def seconds(time: str) -> float:
    """A record's ISO 8601 time, in seconds since 1970."""
    moment = datetime.fromisoformat(time)
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


def now() -> str:
    """The time as ISO 8601 text with its zone."""
    return datetime.now().astimezone().isoformat(timespec="milliseconds")


TIME = Annotated[str, Predicate(lambda text: seconds(text) is not None)]
MONITOR = Annotated[str, Predicate(re.compile(r"(min|max) [\w/.-]+").fullmatch)]
COUNT = Annotated[int, Interval(gt=0)]
RESULTS = dict[str, float | str | None]
NAMED, NODE, SPLIT = mapping(name=str), dict[str, Any], mapping(rows=int)
# what reports read of the config in a manifest, or in the record of a sweep's job
REPORTED_CONFIG = mapping(seed=NotRequired[int | None], monitor=NotRequired[MONITOR])

CONFIG = mapping(
    seed=Annotated[int, Interval(ge=0, lt=2**32)], max_seq_length=COUNT, limit_rows=COUNT | None,
    cache_dir=str | None, strict_data=bool, overwrite_cache=bool, monitor=MONITOR,
    keep_checkpoints=Literal["all", "best", "none"], model=NAMED, accelerator=mapping(name=str, devices=Any),
    optimizer=NODE, scheduler=NODE, task=NODE, callbacks=NODE, logger=NODE,
    corpus=mapping(
        name=str, text_column=NotRequired[str], label_column=NotRequired[str],
        pair_column=NotRequired[str | None], label_names=NotRequired[dict[Any, Any] | None],
    ),
    datamodule=mapping(
        batch_size=Annotated[int, Interval(gt=0, le=MAX_BATCH_SIZE)], padding=Literal["longest", "max_length"]
    ),
    trainer=mapping(
        precision=str | int, accelerator=Any, devices=Any, strategy=str, fast_dev_run=NotRequired[bool | int],
        log_every_n_steps=COUNT, accumulate_grad_batches=COUNT,
    ),
)  # fmt: skip

MANIFEST = mapping(
    status=Literal["running", "finished", "failed", "interrupted"], overrides=list[str],
    config=REPORTED_CONFIG, start=TIME, end=TIME | None, exit_reason=str | None,
    versions=dict[str, str | None], sources=str, git=mapping(commit=str, diff=str) | None,
    corpus=NotRequired[mapping(
        labels=list[str], fingerprint=str, splits=mapping(train=SPLIT, validation=SPLIT, test=SPLIT)
    )],
    device=NotRequired[mapping(kind=str)], resumed=NotRequired[list[str]],
    threads=NotRequired[Annotated[int, Interval(gt=0, le=MAX_THREADS)]],
)  # fmt: skip
