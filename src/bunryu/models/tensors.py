"""A checkpoint read for its tensors: objects of other classes become empty ones, and nothing is called."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch


def load_tensors(path: Path) -> Any:
    """What ``torch.save`` wrote, with tensors and plain values as they were and nothing imported or run.

    Trainers save objects beside the weights: the tutorial's Lightning its callbacks' classes, others a
    Namespace or numbers of numpy. Of those only that there is something is kept.

    Raises:
        pickle.UnpicklingError: for what even so would have to be called, and for modules such as ``os``.
        Exception: whatever a damaged file ends in.
    """
    zipped = is_zipfile(path)  # else of torch before 1.6: tensors and plain values alone
    names = torch.serialization.get_unsafe_globals_in_checkpoint(path) if zipped else []
    empty: list[Any] = [(_stand_in(name), name) for name in names]
    with torch.serialization.safe_globals(empty):
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def _stand_in(name: str) -> type:
    """A class that takes what it is given and does nothing; of a mapping's, one whose keys torch can fill."""
    methods: dict[str, Any] = dict.fromkeys(("__init__", "__setstate__"), lambda self, *arguments: None)
    if name.lower().endswith("dict"):
        methods = {"__new__": lambda kind, *arguments: OrderedDict()}
    return type("Nothing", (), methods)
