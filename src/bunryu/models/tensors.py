"""A checkpoint read for its tensors: objects of other classes become empty ones, and nothing is called."""

from __future__ import annotations

import pickletools
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import torch

HEADERS = 3  # pickles before the contents in a file of torch before 1.6: magic number, version, machine


def load_tensors(path: Path) -> Any:
    """What ``torch.save`` wrote, with tensors and plain values as they were and nothing imported or run.

    Trainers save objects beside the weights: the tutorial's Lightning its callbacks' classes, others a
    Namespace or numbers of numpy. Of those only that there is something is kept.

    Raises:
        pickle.UnpicklingError: for what even so would have to be called, and for modules such as ``os``.
        Exception: whatever a damaged file ends in.
    """
    zipped = is_zipfile(path)
    empty: list[Any] = [(_stand_in(name), name) for name in _names_in(path, zipped)]
    with torch.serialization.safe_globals(empty):  # torch's own tensors' parts come before these
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)


def _stand_in(name: str) -> type:
    """A class that takes what it is given and does nothing; of a mapping's, one whose keys torch can fill."""
    methods: dict[str, Any] = dict.fromkeys(("__init__", "__setstate__"), lambda self, *arguments: None)
    if name.lower().endswith("dict"):
        methods = {"__new__": lambda kind, *arguments: OrderedDict()}
    return type("Nothing", (), methods)


def _names_in(path: Path, zipped: bool) -> set[str]:
    """The dotted names of all classes and functions that a checkpoint's pickle refers to."""
    if not zipped:
        with open(path, "rb") as file:
            return {name for _ in range(HEADERS + 1) for name in _globals(file)}
    with ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
        return {name for member in pickles for name in _globals(archive.open(member))}


def _globals(pickle: Any) -> Iterator[str]:
    """The names in one pickle, as it spells them, which is Python 2's way, and as Python 3 does."""
    for code, value, _ in pickletools.genops(pickle):
        if code.name == "GLOBAL":
            module, name = str(value).split(" ", 1)
            yield f"{module}.{name}"
            yield ".".join(NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name)))
